//! Entry point: reads the command line and hands over.

use std::io::Write;
use std::process::ExitCode;

use loden::cli::{self, Invocation};
use loden::{logging, status};

fn main() -> ExitCode {
    let done = match cli::parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Invocation::Help(text)) => write!(std::io::stdout(), "{text}"),
        Ok(Invocation::Version) => writeln!(std::io::stdout(), "{}", cli::version()),
        Ok(Invocation::Status(options)) => match status::show(&options.subnet_file, options.json) {
            Ok((text, ready)) => {
                let printed = write!(std::io::stdout(), "{text}");
                return if ready && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            }
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "loden: {error}");
                return ExitCode::FAILURE;
            }
        },
        Ok(Invocation::Agent(options)) => {
            logging::start(options.verbosity);
            return match loden::agent::run(*options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    let _ = writeln!(std::io::stderr(), "loden: {error:#}");
                    ExitCode::FAILURE
                }
            };
        }
        Ok(other) => writeln!(std::io::stdout(), "{other:#?}"),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "loden: {error}");
            return ExitCode::from(cli::EXIT_USAGE);
        }
    };
    done.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}
