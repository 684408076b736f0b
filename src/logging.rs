//! Where log lines go and which are written: to stderr, time in UTC, fields first.
//!
//! `-v=N` is klog's: 0 says what changes, 1 to 4 each operation, from 5 on everything. `RUST_LOG` wins where it is set.
//! Records of the `log` crate, which the netlink crates use, come along.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The crates whose lines are ours; what others say is a level less telling.
const OURS: [&str; 3] = ["loden", "lease", "overlay"];

/// Who tells of each attempt that fails, at the level of an error, where we say once that there is no use in trying. Shown where
/// details are.
const CHATTY: &str = "kube_client";

/// Starts logging. To be called once, first thing; a second call changes nothing.
pub fn start(verbosity: i32) {
    let wanted = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (filter, error) = filter(verbosity, wanted.as_deref());
    let colours = io::stderr().is_terminal();
    let started = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).try_init();
    if let (Ok(()), Some(error)) = (started, error) {
        tracing::warn!(%error, "RUST_LOG cannot be read: going by -v");
    }
}

/// The filter for this level, or the one of `RUST_LOG`; with the error when that cannot be read.
fn filter(verbosity: i32, rust_log: Option<&str>) -> (EnvFilter, Option<ParseError>) {
    let error = match rust_log.map(|text| EnvFilter::builder().parse(text)) {
        Some(Ok(filter)) => return (filter, None),
        Some(Err(error)) => Some(error),
        None => None,
    };
    (EnvFilter::new(directives(verbosity)), error)
}

fn directives(verbosity: i32) -> String {
    let (others, ours) = match verbosity {
        ..=0 => ("warn", "info"),
        1..=4 => ("info", "debug"),
        5.. => ("debug", "trace"),
    };
    let quiet = if others == "warn" { format!("{others},{CHATTY}=off") } else { others.to_owned() };
    OURS.iter().fold(quiet, |all, name| format!("{all},{name}={ours}"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Level;

    use super::*;

    /// Which of our levels are written.
    fn written(verbosity: i32, rust_log: Option<&str>) -> Vec<Level> {
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter(verbosity, rust_log).0).with_writer(io::sink).finish();
        tracing::subscriber::with_default(subscriber, || {
            let all = [
                (Level::ERROR, tracing::enabled!(target: "overlay::plan", Level::ERROR)),
                (Level::INFO, tracing::enabled!(target: "overlay::plan", Level::INFO)),
                (Level::DEBUG, tracing::enabled!(target: "overlay::plan", Level::DEBUG)),
                (Level::TRACE, tracing::enabled!(target: "overlay::plan", Level::TRACE)),
            ];
            all.into_iter().filter_map(|(level, on)| on.then_some(level)).collect()
        })
    }

    #[test]
    fn the_level_follows_v_unless_rust_log_says_otherwise() {
        for verbosity in [-1, 0] {
            assert_eq!(written(verbosity, None), [Level::ERROR, Level::INFO]);
        }
        for verbosity in [1, 4] {
            assert_eq!(written(verbosity, None), [Level::ERROR, Level::INFO, Level::DEBUG]);
        }
        for verbosity in [5, 10] {
            assert_eq!(written(verbosity, None), [Level::ERROR, Level::INFO, Level::DEBUG, Level::TRACE]);
        }
        assert_eq!(written(10, Some("error")), [Level::ERROR]);
    }

    #[test]
    fn a_malformed_rust_log_is_told_and_v_holds() {
        let (_, error) = filter(0, Some("loden=loudly"));
        assert!(error.is_some());
        assert_eq!(written(1, Some("loden=loudly")), [Level::ERROR, Level::INFO, Level::DEBUG]);
    }

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_the_time_in_utc_and_its_fields_and_no_colours() {
        let page = Page::default();
        let to = page.clone();
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(filter(0, None).0).with_ansi(false).with_writer(move || to.clone()).finish();
        tracing::subscriber::with_default(subscriber, || tracing::info!(target: "loden", subnet = "10.5.52.0/24", "lease held"));
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let time = text.split(' ').next().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{text}");
        assert!(text.contains("lease held subnet=\"10.5.52.0/24\"") && !text.contains('\u{1b}'), "{text}");
    }
}
