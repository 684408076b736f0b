//! What systemd is told: ready, a line of status, alive, stopping. Silent where there is no systemd.
//!
//! All calls are one datagram at most and never fail the agent.

use std::time::Duration;

use sd_notify::NotifyState;

/// The agent does its work. Told once; later ones are ignored by systemd.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// One line about how it goes, for `systemctl status`.
pub fn status(line: &str) {
    // A line end would begin another assignment.
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    tell(&[NotifyState::Status(&line)]);
}

/// The agent is going, on purpose.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The agent is alive. To be told every [`watchdog_period`].
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often systemd wants to hear that the agent is alive: half of `WATCHDOG_USEC`, as sd_watchdog_enabled(3) recommends.
/// None where there is no watchdog.
#[must_use]
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|period| !period.is_zero())
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::{Command, Stdio};

    use super::*;

    /// Not a test by itself: what the tests below run in a process of its own, because the environment is the process's.
    #[test]
    #[ignore = "run by the other tests with the environment they want"]
    fn says_everything() {
        ready();
        status("holds 10.5.52.0/24\nREADY=0");
        alive();
        stopping();
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            assert_eq!(watchdog_period(), Some(Duration::from_secs(5)));
        } else {
            assert_eq!(watchdog_period(), None);
        }
    }

    fn child() -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "systemd::tests::says_everything", "--ignored"]).stdout(Stdio::null()).stderr(Stdio::null());
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        command
    }

    #[test]
    fn systemd_hears_each_state_in_turn_and_a_status_stays_one_line() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let done = child().env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "10000000").status().unwrap();
        assert!(done.success());
        for wanted in ["READY=1", "STATUS=holds 10.5.52.0/24 READY=0", "WATCHDOG=1", "STOPPING=1"] {
            let mut buffer = [0; 256];
            let length = systemd.recv(&mut buffer).unwrap();
            assert_eq!(String::from_utf8_lossy(&buffer[..length]).trim_end(), wanted);
        }
    }

    #[test]
    fn without_systemd_nothing_is_said_and_nothing_fails() {
        assert!(child().status().unwrap().success());
    }
}
