//! Entry point: reads the command line and hands over.

use std::io::Write;
use std::process::ExitCode;

use loden::cli::{self, CleanupOptions, Invocation};
use loden::{agent, cni, commands, conceal, conflicts, logging, privilege, status};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    // Before anything else: a runtime calls it for every container.
    if cni::is_called(&arguments) {
        return cni::main();
    }
    let invocation = match cli::parse(arguments, |name| std::env::var_os(name)) {
        Ok(invocation) => invocation,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(cli::EXIT_USAGE);
        }
    };
    let stays = matches!(&invocation, Invocation::Cleanup(_, CleanupOptions { stay: true, .. }));
    match obey(invocation) {
        Ok((text, code)) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) if stays && code == ExitCode::SUCCESS => commands::await_end(),
            Ok(()) => code,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked; returns what to print, and the exit code.
fn obey(invocation: Invocation) -> anyhow::Result<(String, ExitCode)> {
    let text = match invocation {
        Invocation::Help(text) => text,
        Invocation::Version => format!("{}\n", cli::version()),
        Invocation::Agent(options) => {
            logging::start(options.verbosity);
            conceal::password(&options);
            let flannelds = conflicts::flannelds();
            // On a Node one that is about to be replaced is waited for.
            if options.store.etcd().is_some() {
                conflicts::refuse_beside(&flannelds, &options)?;
            }
            privilege::narrow(options.healthz.map(|address| address.port()), options.install.conf.is_some())?;
            agent::run(*options, flannelds)?;
            String::new()
        }
        Invocation::Status(options) => {
            let (text, ready) = status::show(&options.subnet_file, options.json)?;
            return Ok((text, if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }));
        }
        Invocation::Plan(options) => commands::plan(&options)?,
        Invocation::Release(options) => match commands::release(&options)?.as_slice() {
            [] => "no lease of this host is in the store\n".to_owned(),
            keys => keys.iter().map(|key| format!("released {key}\n")).collect(),
        },
        Invocation::Cleanup(options, CleanupOptions { handover: None, stay: _ }) => commands::cleanup(&options)?,
        Invocation::Cleanup(options, CleanupOptions { handover: Some(wait), stay: _ }) => {
            let commands::HandedOver { text, complete } = commands::handover(&options, wait)?;
            return Ok((text, if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }));
        }
        Invocation::InstallCni(options) => commands::install_cni(&options)?,
        Invocation::Cni => return Ok((String::new(), cni::main())),
        Invocation::DockerOpts(wanted) => {
            wanted.write()?;
            String::new()
        }
    };
    Ok((text, ExitCode::SUCCESS))
}

fn complain(text: &str) {
    // Where nobody reads it, the exit code has to do.
    let _ = writeln!(std::io::stderr(), "loden: {text}");
}
