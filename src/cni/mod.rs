//! The CNI plugin `flannel`: gives a container its interface by having another plugin, `bridge`, make it from this host's subnet.
//!
//! It is the same program, called by the name `flannel` or as `loden cni`. It renders the delegate's configuration, keeps it for DEL, and
//! becomes the delegate: an ADD costs one exec more than the delegate's own, and neither a runtime nor the command line's parser is
//! started. What it cannot do it answers as CNI's specification says, with a code and a remedy.

mod call;
mod check;
mod config;
mod delegate;
mod failure;
mod kept;
mod render;
mod version;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::reasons;
use crate::subnet_env::{ReadError, SubnetEnv};
pub use call::{Call, Verb};
pub use config::{NetConf, Object};
use delegate::Delegate;
pub use failure::{Code, Failure};
use kept::{Found, Kept};
pub use render::delegate as render;

/// The plugin's name: by it a runtime calls the program.
pub const PLUGIN: &str = "flannel";
/// The command that stands in for the name.
const COMMAND: &str = "cni";
/// What a person is told. It also tells our binary, of whichever version, from flannel's.
pub const MARK: &str = "CNI plugin flannel, the one that is loden";

/// How long an ADD waits for the first subnet of a boot: longer than an agent takes to its lease, shorter than any runtime's patience
/// (kubelet's `--runtime-request-timeout` is 2 min).
const BOOT: Duration = Duration::from_secs(10);
/// How often it is looked for then.
const LOOK: Duration = Duration::from_millis(20);

/// Whether the program was called as the plugin.
#[must_use]
pub fn is_called(arguments: &[OsString]) -> bool {
    let name = |called: &OsString| Path::new(called).file_name() == Some(OsStr::new(PLUGIN));
    match arguments {
        [called, ..] if name(called) => true,
        [_, command] => command == COMMAND,
        _ => false,
    }
}

/// Does what the variables and standard input ask for, prints the answer, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let mut version = version::LATEST.to_owned();
    let (text, code) = match answer(&mut version) {
        Ok(answer) => answer,
        Err(failure) => (failure.json(&version), 1),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::FAILURE,
    }
}

/// What to print, and the exit code. `version` becomes that of the configuration once it is known.
fn answer(version: &mut String) -> Result<(String, u8), Failure> {
    let Some(call) = Call::read(|name| std::env::var_os(name))? else {
        // Not to standard output: what stands there is for runtimes.
        let _ = writeln!(
            std::io::stderr(),
            "{MARK} {}: speaks CNI {}, with a container runtime",
            env!("CARGO_PKG_VERSION"),
            version::SUPPORTED.join(", ")
        );
        return Ok((String::new(), 0));
    };
    let mut text = Vec::new();
    std::io::stdin()
        .take(config::MOST.saturating_add(1))
        .read_to_end(&mut text)
        .map_err(|error| Failure::new(Code::Io, format!("cannot read standard input: {error}")))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > config::MOST) {
        return Err(Failure::new(
            Code::Decode,
            format!("the network configuration on standard input is longer than {} bytes", config::MOST),
        ));
    }
    if call.verb == Verb::Version {
        return version_of(&text).map(|version| (version::answer(&version), 0));
    }
    let conf = NetConf::parse(&text)?;
    if version::SUPPORTED.contains(&conf.version.as_str()) {
        version.clone_from(&conf.version);
    }
    version::check(call.verb, &conf.version)?;
    obey(&call, &conf).map(|code| (String::new(), code))
}

/// The version that VERSION is asked in: no network is named there.
fn version_of(text: &[u8]) -> Result<String, Failure> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(String::new());
    }
    let said: Value = serde_json::from_slice(text)
        .map_err(|error| Failure::new(Code::Decode, format!("what VERSION is asked on standard input is no JSON: {error}")))?;
    Ok(said.get("cniVersion").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// Does it, and returns the exit code. Where the delegate is all that is left to do, this does not return.
fn obey(call: &Call, conf: &NetConf) -> Result<u8, Failure> {
    let kept = Kept::of(conf, &call.container);
    match call.verb {
        Verb::Add => {
            await_subnet(&conf.subnet_file);
            let delegate = Delegate::find(&rendered(conf, Code::TryAgainLater)?, &call.path)?;
            kept.put(delegate.config())?;
            let failure = delegate.become_it();
            // It has made nothing; and of two failures the first counts.
            let _ = kept.remove();
            Err(failure)
        }
        Verb::Del => {
            let config = match kept.read()? {
                Found::Config(config) => config,
                // What was never made, or is gone: that is what DEL is for.
                Found::Nothing => return kept.remove().map(|()| 0),
                // By the container's name the delegate finds what it made, whatever else the configuration says.
                Found::Damaged => rendered(conf, Code::TryAgainLater)?,
            };
            let code = Delegate::find(&config, &call.path)?.run()?;
            if code == 0 {
                kept.remove()?;
            }
            Ok(code)
        }
        Verb::Check => {
            let Found::Config(mut config) = kept.read()? else {
                return Err(Failure::new(Code::UnknownContainer, format!("nothing is known of container {}", call.container)));
            };
            config.insert("cniVersion".to_owned(), conf.version.as_str().into());
            config.extend(conf.prev_result.clone().map(|result| ("prevResult".to_owned(), check::with_gateways(result))));
            Err(Delegate::find(&config, &call.path)?.become_it())
        }
        Verb::Status => {
            let delegate = rendered(conf, Code::NotAvailable).and_then(|config| Delegate::find(&config, &call.path));
            Err(delegate.map_err(|failure| failure.with_code(Code::NotAvailable))?.become_it())
        }
        Verb::Gc => {
            // Without it everything would count as gone.
            let Some(attachments) = &conf.attachments else {
                return Err(Failure::new(Code::Config, format!("GC needs {}", config::ATTACHMENTS)));
            };
            let mut config = rendered(conf, Code::TryAgainLater)?;
            config.insert(config::ATTACHMENTS.to_owned(), attachments.clone());
            let code = Delegate::find(&config, &call.path)?.run()?;
            if code == 0 {
                kept::collect(conf)?;
            }
            Ok(code)
        }
        Verb::Version => Ok(0),
    }
}

/// Waits a while for a subnet file that is not there. After a boot `/run` is empty and the configuration that led here is not: pods and
/// agent start at the same time, and a pod that is refused waits out its kubelet's back-off of ten seconds and more.
fn await_subnet(subnet_file: &Path) {
    let end = Instant::now() + BOOT;
    while !subnet_file.exists() && Instant::now() < end {
        std::thread::sleep(LOOK);
    }
}

/// The delegate's configuration from the subnet file as it is now.
fn rendered(conf: &NetConf, early: Code) -> Result<Object, Failure> {
    let env = SubnetEnv::read(&conf.subnet_file).map_err(|error| match error {
        ReadError::Missing(_) | ReadError::Unusable { .. } => Failure::new(early, error)
            .with_remedy("the agent on this host writes it once it holds a subnet: look whether it runs (loden status), and at its log"),
        ReadError::Io { .. } => Failure::new(Code::Io, reasons::line(&error)),
    })?;
    Ok(render(conf, &env))
}
