//! The command line: what it says, as an [`Invocation`] of plain values, or one line that says what is wrong with it.
//!
//! [`parse`] is pure: arguments and environment are passed in, nothing is printed and no file is opened. Flags and defaults
//! are flanneld's; called by the name `flanneld` the program is the agent.

mod endpoint;
mod flags;
mod gosyntax;
mod kube;
mod options;
mod page;
mod values;

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory, FromArgMatches};

pub use endpoint::{Endpoint, EndpointError, Endpoints, EtcdPrefix, PrefixError};
pub use gosyntax::{FlagSpec, Given, SyntaxError, normalise};
pub use kube::KubeOptions;
pub use options::{
    ClientIdentity, Credentials, EtcdOptions, InterfaceOptions, Options, OptionsError, PasswordError, PasswordSource, RouteOptions,
    StoreOptions,
};
pub use page::flag_tables;
pub use values::{IfaceSelector, Secret, ValueError};

use crate::docker_opts::DockerOpts;
use crate::install::InstallOptions;
use flags::{Cli, Command};

/// The exit code of a command line that cannot be used.
pub const EXIT_USAGE: u8 = 2;

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Invocation {
    /// Run the agent.
    Agent(Box<Options>),
    /// Show the running agent's report.
    Status(StatusOptions),
    /// Print what the agent would change.
    Plan(Box<Options>),
    /// Give the lease back.
    Release(Box<Options>),
    /// Remove what is ours from the kernel.
    Cleanup(Box<Options>, CleanupOptions),
    /// Install the CNI plugin and its configuration.
    InstallCni(InstallCniOptions),
    /// Be the CNI plugin.
    Cni,
    /// Write options for dockerd.
    DockerOpts(DockerOpts),
    /// Print the version to stdout and exit 0.
    Version,
    /// Print this to stdout and exit 0.
    Help(String),
}

/// What `status` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusOptions {
    /// The agent's subnet file.
    pub subnet_file: PathBuf,
    /// Whether the report is wanted as JSON.
    pub json: bool,
}

/// What `cleanup` is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupOptions {
    /// For a handover to flanneld only what that does not manage is removed, waiting for it so long.
    pub handover: Option<Duration>,
    /// Whether to wait for a signal when it is done.
    pub stay: bool,
}

/// What `install-cni` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallCniOptions {
    /// What is installed where.
    pub what: InstallOptions,
    /// The agent's subnet file.
    pub subnet_file: PathBuf,
    /// Whether to stay and keep it.
    pub watch: bool,
    /// How much is logged.
    pub verbosity: i32,
}

/// The command line cannot be used. Its text is one line; the exit code is [`EXIT_USAGE`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    /// One line whatever the words were: line ends and terminal escapes in them are shown, not sent.
    fn new(text: impl AsRef<str>) -> Self {
        let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        Self(text.as_ref().chars().map(shown).collect())
    }
}

/// What `--version` prints.
#[must_use]
pub fn version() -> String {
    format!("loden {}", env!("CARGO_PKG_VERSION"))
}

/// The one command that does not take Go's flags.
const DOCKER_OPTS: &str = "docker-opts";

/// The name that makes the program the agent, without a command.
const FLANNELD: &str = "flanneld";

/// What the command line says. The first argument is the name that the program was called by.
///
/// # Errors
/// [`UsageError`] with what is wrong and what would do.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Invocation, UsageError> {
    let mut arguments = arguments.into_iter();
    let called = arguments.next().unwrap_or_default();
    let as_flanneld = Path::new(&called).file_name() == Some(OsStr::new(FLANNELD));
    let mut words: Vec<OsString> = arguments.collect();
    let name = if as_flanneld {
        "agent".to_owned()
    } else {
        let name = if words.is_empty() { OsString::new() } else { words.remove(0) };
        name.into_string().map_err(|name| UsageError::new(format!("{} is no command; see loden --help", name.to_string_lossy())))?
    };
    let mut program = program(as_flanneld);
    match name.as_str() {
        "" => {
            return Err(UsageError::new(
                "a command is wanted: agent, status, plan, release, cleanup, docker-opts, install-cni, cni or version; see loden --help",
            ));
        }
        "-version" | "--version" | "version" if words.is_empty() => return Ok(Invocation::Version),
        "-h" | "-help" | "--help" => return Ok(Invocation::Help(program.render_help().to_string())),
        flag if flag.starts_with('-') => {
            return Err(UsageError::new(format!("{flag} stands before a command: write loden agent {flag}, or see loden --help")));
        }
        _ => {}
    }
    if name == DOCKER_OPTS {
        // A script's letters, not Go's flags.
        return clap_says(
            program,
            [name].into_iter().chain(words.into_iter().map(|word| word.to_string_lossy().into_owned())),
            &[],
            environment,
        );
    }
    let Some(specs) = program.find_subcommand(&name).filter(|_| name != "help").map(specs) else {
        return clap_says(
            program,
            [name].into_iter().chain(words.into_iter().map(|word| word.to_string_lossy().into_owned())),
            &[],
            environment,
        );
    };
    let given = normalise(&words, &environment, &specs)
        .map_err(|error| UsageError::new(format!("{error}; see {}", help_of(&name, as_flanneld))))?;
    let argv = [name].into_iter().chain(given.iter().map(argument));
    clap_says(program, argv, &given, environment)
}

/// `--help` is the one flag that clap takes without a value.
fn argument(given: &Given) -> String {
    if given.name == "help" { "--help".to_owned() } else { given.to_argument() }
}

fn clap_says(
    program: clap::Command,
    argv: impl Iterator<Item = String>,
    given: &[Given],
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Invocation, UsageError> {
    let full = ["loden".to_owned()].into_iter().chain(argv);
    match program.try_get_matches_from(full).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => invocation(cli.command, given, environment),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Invocation::Help(error.render().to_string())),
        Err(error) => Err(UsageError::new(one_line(&error, given))),
    }
}

fn invocation(command: Command, given: &[Given], environment: impl Fn(&str) -> Option<OsString>) -> Result<Invocation, UsageError> {
    let options = |flags: Box<flags::AgentFlags>| {
        Options::of(*flags, given, &environment).map(Box::new).map_err(|error| UsageError::new(error.to_string()))
    };
    Ok(match command {
        Command::Agent(flags) | Command::Plan(flags) | Command::Release(flags) if flags.logging.version => Invocation::Version,
        Command::Cleanup(flags) if flags.agent.logging.version => Invocation::Version,
        Command::Agent(flags) => Invocation::Agent(options(flags)?),
        Command::Plan(flags) => Invocation::Plan(options(flags)?),
        Command::Release(flags) => Invocation::Release(options(flags)?),
        Command::Cleanup(flags) => {
            let flags::CleanupFlags { handover, wait, stay, agent } = *flags;
            if wait > 0 && !handover {
                return Err(UsageError::new("--wait is for a handover: give --handover too, or leave it away"));
            }
            let handover = handover.then(|| Duration::from_secs(wait));
            Invocation::Cleanup(options(Box::new(agent))?, CleanupOptions { handover, stay })
        }
        Command::Status(flags::StatusFlags { subnet_file, json }) => Invocation::Status(StatusOptions { subnet_file, json }),
        Command::DockerOpts(flags) => Invocation::DockerOpts(flags.into()),
        Command::InstallCni(flags) if flags.logging.version => Invocation::Version,
        Command::InstallCni(flags) if flags.plugin_only && flags.watch => {
            return Err(UsageError::new("--watch keeps the configuration too: leave --plugin-only away"));
        }
        Command::InstallCni(flags) => Invocation::InstallCni(flags.into()),
        Command::Cni => Invocation::Cni,
        Command::Version => Invocation::Version,
    })
}

/// The flag that is a secret, and the variable that stands in for it.
const PASSWORD: &str = "etcd-password";
/// The variable that gives the password.
pub const PASSWORD_VARIABLE: &str = "FLANNELD_ETCD_PASSWORD";

/// Whether the password stands among the agent's arguments.
#[must_use]
pub fn shows_password(arguments: &[OsString]) -> bool {
    agent_flags(arguments).1.iter().any(|flag| flag.name == PASSWORD)
}

/// The agent's arguments with the password's file in the password's place.
#[must_use]
pub fn with_password_file(arguments: &[OsString], file: &Path) -> Vec<OsString> {
    let (before, flags) = agent_flags(arguments);
    let others = flags.iter().filter(|flag| flag.name != PASSWORD).map(|flag| flag.to_argument().into());
    let mut file_flag = OsString::from(format!("--{PASSWORD}-file="));
    file_flag.push(file);
    before.iter().cloned().chain(others).chain([file_flag]).collect()
}

/// What stands before the agent's flags, and the flags.
fn agent_flags(arguments: &[OsString]) -> (&[OsString], Vec<Given>) {
    let program = program(false);
    let specs = program.find_subcommand("agent").map(specs).unwrap_or_default();
    let as_flanneld = arguments.first().is_some_and(|called| Path::new(called).file_name() == Some(OsStr::new(FLANNELD)));
    let (before, words) = arguments.split_at_checked(if as_flanneld { 1 } else { 2 }).unwrap_or((arguments, &[]));
    // They have been read before, so they can be read.
    (before, gosyntax::on_command_line(words, &specs).unwrap_or_default())
}

/// The clap command, with what a reader of a command's help has no use for out of sight.
fn program(as_flanneld: bool) -> clap::Command {
    let mut program = Cli::command().term_width(120);
    for name in ["plan", "release", "cleanup"] {
        program = program.mut_subcommand(name, |command| {
            command.mut_args(|arg| {
                let needless = arg.get_help_heading().is_some_and(|heading| flags::AGENT_ONLY.contains(&heading));
                let removed = arg.get_id() == "state_file" || arg.get_id().as_str().starts_with("cni_");
                let used = arg.get_id() == "subnet_file" || name == "cleanup" && removed;
                let hide = needless && !used;
                arg.hide(hide)
            })
        });
    }
    if as_flanneld {
        program = program.mut_subcommand("agent", |agent| agent.override_usage("flanneld [FLAGS]"));
    }
    program.build();
    program
}

fn specs(command: &clap::Command) -> Vec<FlagSpec> {
    let spec = |arg: &clap::Arg| {
        let name = arg.get_long()?.to_owned();
        let help = matches!(arg.get_action(), ArgAction::Help);
        let boolean = help || arg.is_require_equals_set();
        Some(FlagSpec {
            boolean,
            repeatable: matches!(arg.get_action(), ArgAction::Append),
            unset_by_empty: arg.get_default_values().is_empty() && !boolean,
            // A variable that asks for help, or for a way to do things once, would only surprise.
            from_environment: !help
                && !matches!(name.as_str(), "version" | "json" | "handover" | "wait" | "stay" | "plugin-only" | "watch"),
            name,
        })
    };
    command.get_arguments().filter_map(spec).collect()
}

fn help_of(command: &str, as_flanneld: bool) -> String {
    if as_flanneld { format!("{FLANNELD} --help") } else { format!("loden {command} --help") }
}

/// What clap found wrong, in one line that names the flag as it was given, and the nearest where there is one.
fn one_line(error: &clap::Error, given: &[Given]) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let nearest = |kind| context(kind).map_or_else(|| "see --help".to_owned(), |nearest| format!("{nearest} is the nearest"));
    // clap shows a flag with its value's name: `--healthz-port <PORT>`, `--ip-masq[=<BOOL>]`.
    let invalid = context(ContextKind::InvalidArg).unwrap_or_default();
    let flag = invalid.split([' ', '[', '=']).next().unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument => format!("unknown flag {flag}: {}", nearest(ContextKind::SuggestedArg)),
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("{name:?} is no command: {}", nearest(ContextKind::SuggestedSubcommand))
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let variable =
                given.iter().find(|given| flag.strip_prefix("--") == Some(&given.name)).and_then(|given| given.variable.as_deref());
            let reason = error.source().map_or_else(|| "a value is wanted".to_owned(), ToString::to_string);
            format!("{}: {reason}", variable.unwrap_or(flag))
        }
        _ => {
            let all = error.to_string();
            all.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    }
}

#[cfg(test)]
mod tests;
