//! The expressions that our rules are made of, as values and as nf_tables' attributes.
//!
//! The numbers are those of include/uapi/linux/netfilter/nf_tables.h, v6.18.

use netlink_packet_core::DecodeError;

use super::attribute::{Attributes, attributes, find, number, text};

/// The first register of 16 bytes.
pub(super) const REGISTER: u32 = 1;

/// What an offset counts from (`enum nft_payload_bases`).
pub(super) const NETWORK: u32 = 1;
pub(super) const TRANSPORT: u32 = 2;
/// Behind the UDP header. Known since Linux 5.17.
pub(super) const INNER: u32 = 3;

/// `NFT_META_MARK`, `NFT_META_NFPROTO`, `NFT_META_L4PROTO`.
pub(super) const MARK: u32 = 3;
pub(super) const NFPROTO: u32 = 15;
pub(super) const L4PROTO: u32 = 16;

/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY` (include/uapi/linux/netfilter/nf_nat.h, v6.18).
pub(super) const FULLY_RANDOM: u32 = 1 << 4;

/// Verdicts: `NF_DROP`, `NF_ACCEPT`, `NFT_JUMP`, `NFT_GOTO`, `NFT_RETURN`.
pub(super) const DROP: i32 = 0;
pub(super) const ACCEPT: i32 = 1;
pub(super) const JUMP: i32 = -3;
pub(super) const GOTO: i32 = -4;
pub(super) const RETURN: i32 = -5;

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// A step of a rule. What it says of itself in a dump, less what it has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    /// A property of the packet into the register.
    Meta { key: u32 },
    /// Bytes of the packet into a register.
    Payload { register: u32, base: u32, offset: u32, len: u32 },
    /// Goes on if the register holds this, or does not.
    Compare { equal: bool, value: Vec<u8> },
    /// Keeps the bits of a register that are in the mask.
    Mask { register: u32, mask: Vec<u8> },
    /// Goes on if the registers' content is in a set.
    Lookup { set: String },
    /// Counts packets.
    Counter,
    /// Gives the packet this host's address as source, and ends the rule.
    Masquerade { flags: u32 },
    /// Keeps the packet from connection tracking.
    Notrack,
    /// Ends the rule.
    Verdict { code: i32, chain: Option<String> },
    /// What no rule of ours has. Of what iptables left in its own form, the name as well: `target REJECT`, `match comment`.
    Other(String),
}

/// An expression and, of a counter, the packets that it has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) expr: Expr,
    pub(super) packets: Option<u64>,
}

impl Expr {
    fn name(&self) -> &str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Compare { .. } => "cmp",
            Self::Mask { .. } => "bitwise",
            Self::Lookup { .. } => "lookup",
            Self::Counter => "counter",
            Self::Masquerade { .. } => "masq",
            Self::Notrack => "notrack",
            Self::Verdict { .. } => "immediate",
            Self::Other(name) => name,
        }
    }

    /// Appends it to the list of a rule's expressions.
    pub(super) fn encode(&self, list: &mut Attributes<'_>) {
        list.nest(LIST_ELEM, |element| {
            element.text(EXPR_NAME, self.name());
            element.nest(EXPR_DATA, |data| self.encode_data(data));
        });
    }

    fn encode_data(&self, data: &mut Attributes<'_>) {
        match self {
            Self::Meta { key } => {
                data.number(1, REGISTER);
                data.number(2, *key);
            }
            Self::Payload { register, base, offset, len } => {
                for (kind, value) in [(1, register), (2, base), (3, offset), (4, len)] {
                    data.number(kind, *value);
                }
            }
            Self::Compare { equal, value } => {
                data.number(1, REGISTER);
                data.number(2, u32::from(!equal));
                data.nest(3, |data| data.bytes(DATA_VALUE, value));
            }
            Self::Mask { register, mask } => {
                data.number(1, *register);
                data.number(2, *register);
                data.number(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                data.nest(4, |data| data.bytes(DATA_VALUE, mask));
                data.nest(5, |data| data.bytes(DATA_VALUE, &vec![0; mask.len()]));
            }
            Self::Lookup { set } => {
                data.text(1, set);
                data.number(2, REGISTER);
            }
            Self::Masquerade { flags: 0 } | Self::Notrack | Self::Counter | Self::Other(_) => {}
            Self::Masquerade { flags } => data.number(1, *flags),
            Self::Verdict { code, chain } => {
                data.number(1, 0);
                data.nest(2, |data| {
                    data.nest(DATA_VERDICT, |verdict| {
                        verdict.bytes(VERDICT_CODE, &code.to_be_bytes());
                        if let Some(chain) = chain {
                            verdict.text(VERDICT_CHAIN, chain);
                        }
                    });
                });
            }
        }
    }
}

/// Reads a rule's list of expressions.
pub(super) fn decode(list: &[u8]) -> Result<Vec<Read>, DecodeError> {
    let element = |element: Result<(u16, &[u8]), DecodeError>| {
        let (_, element) = element?;
        let name = text(element, EXPR_NAME)?.unwrap_or_default();
        let data = find(element, EXPR_DATA)?.unwrap_or_default();
        let expr = match (known(&name, data)?, name.as_str()) {
            (Some(expr), _) => expr,
            (None, "match" | "target") => Expr::Other(format!("{name} {}", text(data, 1)?.unwrap_or_default())),
            (None, _) => Expr::Other(name),
        };
        let packets = if expr == Expr::Counter { find(data, 2)?.and_then(|packets| packets.try_into().ok()) } else { None };
        Ok(Read { expr, packets: packets.map(u64::from_be_bytes) })
    };
    attributes(list).map(element).collect()
}

/// The expression, if it is one of ours to the last number.
fn known(name: &str, data: &[u8]) -> Result<Option<Expr>, DecodeError> {
    let number = |kind| Ok::<_, DecodeError>(number(data, kind)?.unwrap_or_default());
    let value = |kind| Ok::<_, DecodeError>(find(find(data, kind)?.unwrap_or_default(), DATA_VALUE)?.unwrap_or_default().to_vec());
    Ok(match name {
        "meta" if number(1)? == REGISTER => Some(Expr::Meta { key: number(2)? }),
        "payload" => Some(Expr::Payload { register: number(1)?, base: number(2)?, offset: number(3)?, len: number(4)? }),
        "cmp" if number(1)? == REGISTER && number(2)? <= 1 => Some(Expr::Compare { equal: number(2)? == 0, value: value(3)? }),
        // The sixth is the operation: 0 is and, with a mask, and exclusive or, with nothing.
        "bitwise" if number(1)? == number(2)? && number(6)? == 0 && value(5)?.iter().all(|b| *b == 0) => {
            Some(Expr::Mask { register: number(1)?, mask: value(4)? })
        }
        // The third is a map's; the fifth says that what is not in the set goes on.
        "lookup" if [number(2)?, number(3)?, number(5)?] == [REGISTER, 0, 0] => {
            Some(Expr::Lookup { set: text(data, 1)?.unwrap_or_default() })
        }
        "counter" => Some(Expr::Counter),
        // The second and the third are a range of ports.
        "masq" if number(2)? == 0 && number(3)? == 0 => Some(Expr::Masquerade { flags: number(1)? }),
        "notrack" => Some(Expr::Notrack),
        "immediate" if number(1)? == 0 => {
            let verdict = find(find(data, 2)?.unwrap_or_default(), DATA_VERDICT)?.unwrap_or_default();
            let code = find(verdict, VERDICT_CODE)?.and_then(|code| code.try_into().ok()).map(i32::from_be_bytes);
            let chain = text(verdict, VERDICT_CHAIN)?;
            code.map(|code| Expr::Verdict { code, chain })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let all = vec![
            Expr::Meta { key: L4PROTO },
            Expr::Payload { register: REGISTER, base: INNER, offset: 34, len: 4 },
            Expr::Compare { equal: false, value: vec![0, 0, 1] },
            Expr::Mask { register: 9, mask: vec![255, 255, 255, 0] },
            Expr::Lookup { set: "pass24".to_owned() },
            Expr::Counter,
            Expr::Masquerade { flags: 0 },
            Expr::Masquerade { flags: FULLY_RANDOM },
            Expr::Notrack,
            Expr::Verdict { code: JUMP, chain: Some("vxlan".to_owned()) },
            Expr::Verdict { code: DROP, chain: None },
        ];
        let mut bytes = Vec::new();
        all.iter().for_each(|expr| expr.encode(&mut Attributes(&mut bytes)));
        let read: Vec<Expr> = decode(&bytes).unwrap().into_iter().map(|read| read.expr).collect();
        assert_eq!(read, all);
    }

    #[test]
    fn what_is_not_quite_ours_is_not_taken_for_it() {
        let mut bytes = Vec::new();
        Attributes(&mut bytes).nest(LIST_ELEM, |element| {
            element.text(EXPR_NAME, "lookup");
            element.nest(EXPR_DATA, |data| {
                data.text(1, "pass24");
                data.number(2, REGISTER);
                // NFT_LOOKUP_F_INV: whoever is not in the set.
                data.number(5, 1);
            });
        });
        assert_eq!(decode(&bytes).unwrap(), [Read { expr: Expr::Other("lookup".to_owned()), packets: None }]);
    }
}
