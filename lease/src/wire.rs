//! The lease record as JSON, byte for byte as flanneld writes it, with two fields more: `Owner` and `Boot`.
//!
//! The shapes here are dumb: they mirror the document. [`LeaseRecord`] comes of them by checking each field.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::excerpt::excerpt;
use crate::json::{Text, object};
use crate::{BackendType, LeaseRecord, MacAddr, RecordError, Vni, VtepData};

object! {
    /// The record as anybody may have written it.
    RecordIn<'a> {
        "PublicIP" => public_ip: Text<'a>,
        "PublicIPv6" => public_ipv6: Text<'a>,
        "BackendType" => backend_type: Text<'a>,
        "BackendData" => backend_data: &'a RawValue,
        "BackendV6Data" => backend_v6_data: &'a RawValue,
        "Owner" => owner: Text<'a>,
        "Boot" => boot: Text<'a>,
    }
}

object! {
    /// What the vxlan backend says of its VTEP.
    VtepIn<'a> {
        "VNI" => vni: i64,
        "VtepMAC" => mac: Text<'a>,
    }
}

/// The record as it is written: the fields in flannel's order, absent where flannel leaves them out.
#[derive(Serialize)]
struct RecordOut<'a> {
    #[serde(rename = "PublicIP")]
    public_ip: Ipv4Addr,
    #[serde(rename = "PublicIPv6")]
    public_ipv6: Option<Ipv6Addr>,
    #[serde(rename = "BackendType", skip_serializing_if = "Option::is_none")]
    backend_type: Option<&'a str>,
    #[serde(rename = "BackendData", skip_serializing_if = "Option::is_none")]
    backend_data: Option<VtepOut>,
    #[serde(rename = "BackendV6Data", skip_serializing_if = "Option::is_none")]
    backend_v6_data: Option<VtepOut>,
    #[serde(rename = "Owner", skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(rename = "Boot", skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
}

#[derive(Serialize)]
struct VtepOut {
    #[serde(rename = "VNI")]
    vni: u32,
    #[serde(rename = "VtepMAC")]
    mac: String,
}

/// One thing for each field of a record that flannel knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<T> {
    pub(crate) public_ip: T,
    pub(crate) public_ipv6: T,
    pub(crate) backend_type: T,
    pub(crate) backend_data: T,
    pub(crate) backend_v6_data: T,
}

/// The names of a record's fields in its document.
const FIELDS: Parts<&str> = Parts {
    public_ip: "PublicIP",
    public_ipv6: "PublicIPv6",
    backend_type: "BackendType",
    backend_data: "BackendData",
    backend_v6_data: "BackendV6Data",
};

impl LeaseRecord {
    /// Reads the value under a lease's key.
    ///
    /// # Errors
    /// [`RecordError`] naming the field. What a backend other than vxlan says in its data is not looked at.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let RecordIn { public_ip, public_ipv6, backend_type, backend_data, backend_v6_data, owner, boot } =
            serde_json::from_slice(value).map_err(|error| RecordError::Json(excerpt(&error.to_string())))?;
        let texts = Parts {
            public_ip: Some(&*public_ip.as_ref().ok_or(RecordError::Missing(FIELDS.public_ip))?.0),
            public_ipv6: public_ipv6.as_ref().map(|Text(text)| &**text),
            backend_type: backend_type.as_ref().map(|Text(text)| &**text),
            backend_data: backend_data.map(RawValue::get),
            backend_v6_data: backend_v6_data.map(RawValue::get),
        };
        Ok(Self {
            // A form that we do not know: of a later release, or nobody's. It is no reason to lose a peer.
            owner: owner.and_then(|Text(text)| text.parse().ok()),
            boot: boot.and_then(|Text(text)| text.parse().ok()),
            ..Self::from_parts(&FIELDS, texts)?
        })
    }

    /// The record that these texts make, wherever they stand; `names` is what they are called there. Of no owner and no boot.
    pub(crate) fn from_parts(names: &Parts<&'static str>, texts: Parts<Option<&str>>) -> Result<Self, RecordError> {
        let Parts { public_ip, public_ipv6, backend_type, backend_data, backend_v6_data } = texts;
        let public_ip = public_ip.map(|text| field(names.public_ip, text, str::parse::<Ipv4Addr>)).transpose()?;
        let public_ipv6 = public_ipv6.map(|text| field(names.public_ipv6, text, str::parse::<Ipv6Addr>)).transpose()?;
        match (public_ip, public_ipv6) {
            (None, None) => return Err(RecordError::Missing(names.public_ip)),
            (Some(Ipv4Addr::UNSPECIFIED), None) => return Err(invalid(names.public_ip, "0.0.0.0", "no host has that address")),
            _ => (),
        }
        let backend = backend_type.map_or(BackendType::Alloc, BackendType::named);
        let vtep = |field, data: Option<&str>| match backend {
            BackendType::Vxlan => data.map(|data| vtep(field, data)).transpose(),
            BackendType::HostGw | BackendType::Alloc | BackendType::Other(_) => Ok(None),
        };
        Ok(Self {
            public_ip: public_ip.filter(|address| !address.is_unspecified()),
            public_ipv6,
            vtep: vtep(names.backend_data, backend_data)?,
            vtep_v6: vtep(names.backend_v6_data, backend_v6_data)?,
            owner: None,
            boot: None,
            backend,
        })
    }

    /// The value to put under the lease's key.
    #[must_use]
    pub fn encode(&self) -> String {
        let Self { public_ip, public_ipv6, backend, vtep, vtep_v6, owner, boot } = self;
        let out = RecordOut {
            public_ip: public_ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
            public_ipv6: *public_ipv6,
            backend_type: backend.name(),
            backend_data: vtep.map(VtepOut::from),
            backend_v6_data: vtep_v6.map(VtepOut::from),
            owner: owner.map(|owner| owner.to_string()),
            boot: boot.map(|boot| boot.to_string()),
        };
        // Strings and numbers alone: there is nothing in it that could fail.
        serde_json::to_string(&out).unwrap_or_default()
    }
}

impl From<VtepData> for VtepOut {
    fn from(VtepData { vni, mac }: VtepData) -> Self {
        Self { vni: vni.get(), mac: mac.to_string() }
    }
}

impl VtepData {
    /// What stands in a record as backend data.
    pub(crate) fn encode(self) -> String {
        // A number and a string: there is nothing in it that could fail.
        serde_json::to_string(&VtepOut::from(self)).unwrap_or_default()
    }
}

impl BackendType {
    fn named(name: &str) -> Self {
        match name {
            "" | "alloc" => Self::Alloc,
            "vxlan" => Self::Vxlan,
            "host-gw" => Self::HostGw,
            other => Self::Other(excerpt(other).into()),
        }
    }

    /// Its name in a record; none for `alloc`, which flannel leaves out.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Vxlan => Some("vxlan"),
            Self::HostGw => Some("host-gw"),
            Self::Alloc => None,
            Self::Other(name) => Some(name),
        }
    }
}

fn vtep(place: &'static str, data: &str) -> Result<VtepData, RecordError> {
    let VtepIn { vni, mac } = serde_json::from_str(data).map_err(|error| RecordError::Json(excerpt(&format!("{place}: {error}"))))?;
    let vni = vni.ok_or(RecordError::Missing("VNI"))?;
    let mac = field("VtepMAC", &mac.ok_or(RecordError::Missing("VtepMAC"))?.0, str::parse::<MacAddr>)?;
    let in_range = u64::try_from(vni).ok().and_then(|vni| Vni::new(vni).ok());
    Ok(VtepData { vni: in_range.ok_or_else(|| invalid("VNI", &vni.to_string(), "0 to 16777215 are possible"))?, mac })
}

fn field<T, E: std::fmt::Display>(name: &'static str, text: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, RecordError> {
    parse(text).map_err(|error| invalid(name, text, &error.to_string()))
}

fn invalid(field: &'static str, value: &str, reason: &str) -> RecordError {
    RecordError::Field { field, value: excerpt(value), reason: reason.to_owned() }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
