//! CNI plugins called as a container runtime calls them, and a delegate that only writes down what it is told.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// Where Debian keeps the standard plugins.
const STANDARD: &str = "/usr/lib/cni";

/// A call of a plugin.
#[derive(Debug, Clone)]
pub struct CniCall {
    /// `CNI_COMMAND`.
    pub command: &'static str,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// `CNI_PATH`.
    pub path: PathBuf,
}

impl CniCall {
    /// The call of an interface `eth0`.
    #[must_use]
    pub fn new(command: &'static str, container: &str, netns: &str, path: &Path) -> Self {
        Self { command, container: container.to_owned(), netns: netns.to_owned(), path: path.to_owned() }
    }

    /// Starts `plugin` with this call; `through` is a command that runs its program elsewhere, or the plugin's own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, mut through: Command, config: &str) -> Result<Child> {
        let Self { command, container, netns, path } = self;
        through.env_clear().env("CNI_COMMAND", command).env("CNI_CONTAINERID", container).env("CNI_NETNS", netns);
        through.env("CNI_IFNAME", "eth0").env("CNI_PATH", path).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        through.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = through.spawn().with_context(|| format!("cannot run {through:?}"))?;
        // One that does not read it says why in its answer.
        let _ = child.stdin.take().context("no pipe to the plugin")?.write_all(config.as_bytes());
        Ok(child)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(&self, through: Command, config: &str) -> Result<Output> {
        Ok(self.start(through, config)?.wait_with_output()?)
    }
}

/// A folder with plugins, as `/opt/cni/bin` is one.
#[derive(Debug)]
pub struct CniBin(TempDir);

impl CniBin {
    /// With `plugin` as `flannel`, and Debian's standard plugins.
    ///
    /// # Errors
    /// When those are missing.
    pub fn standard(plugin: impl AsRef<Path>) -> Result<Self> {
        let bin = Self::with(plugin)?;
        for name in ["bridge", "host-local", "loopback", "portmap"] {
            let program = Path::new(STANDARD).join(name);
            ensure!(program.is_file(), "{} is missing: apt-get install containernetworking-plugins", program.display());
            symlink(&program, bin.0.path().join(name))?;
        }
        Ok(bin)
    }

    /// With `plugin` as `flannel`, and nothing else.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn with(plugin: impl AsRef<Path>) -> Result<Self> {
        let bin = Self(tempfile::Builder::new().prefix("cni").tempdir()?);
        symlink(plugin.as_ref(), bin.0.path().join("flannel"))?;
        Ok(bin)
    }

    /// Puts a shell script in, under this name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn script(&self, name: &str, script: &str) -> Result<()> {
        let path = self.0.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}"))?;
        Ok(fs::set_permissions(&path, Permissions::from_mode(0o755))?)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The plugin, under the name that it is called by.
    #[must_use]
    pub fn plugin(&self) -> Command {
        Command::new(self.0.path().join("flannel"))
    }
}

/// What a plugin made of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Rendered {
    /// The configuration that its delegate was called with.
    Config(Value),
    /// Nothing: it refused.
    Refused,
}

/// Inputs of `tests/golden/cni`: a network configuration and a subnet file.
#[derive(Debug, Clone)]
pub struct CniCase {
    /// Its folder.
    pub folder: PathBuf,
    /// The folder's name.
    pub name: String,
}

impl CniCase {
    /// All of them, in the order of their names.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn all(golden: &Path) -> Result<Vec<Self>> {
        let mut cases = Vec::new();
        for entry in fs::read_dir(golden).with_context(|| format!("cannot list {}", golden.display()))? {
            let folder = entry?.path();
            if folder.is_dir() {
                let name = folder.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned();
                cases.push(Self { folder, name });
            }
        }
        cases.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(cases)
    }

    /// What flannel's own plugin made of it: `delegate.json`, or no such file where it refused.
    ///
    /// # Errors
    /// When the file is no JSON.
    pub fn golden(&self) -> Result<Rendered> {
        match fs::read_to_string(self.folder.join("delegate.json")) {
            Ok(text) => Ok(Rendered::Config(serde_json::from_str(&text)?)),
            Err(_) => Ok(Rendered::Refused),
        }
    }

    /// Writes what flannel's own plugin made of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_golden(&self, rendered: &Rendered) -> Result<()> {
        let path = self.folder.join("delegate.json");
        match rendered {
            Rendered::Config(config) => Ok(fs::write(path, format!("{config:#}\n"))?),
            Rendered::Refused => match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            },
        }
    }

    /// What `plugin` makes of it.
    ///
    /// # Errors
    /// When it cannot be run, keeps something else than it passes on, or fails without an error of CNI's.
    pub fn render(&self, plugin: &Path) -> Result<Rendered> {
        let bin = CniBin::with(plugin)?;
        let (data, told) = (bin.path().join("data"), bin.path().join("told"));
        let mut config: Value = serde_json::from_str(&fs::read_to_string(self.folder.join("conf.json"))?)?;
        let fields = config.as_object_mut().context("conf.json is no object")?;
        fields.insert("subnetFile".to_owned(), self.folder.join("subnet.env").to_string_lossy().into());
        fields.insert("dataDir".to_owned(), data.to_string_lossy().into());
        for name in ["bridge", "ptp", "macvlan"] {
            let said = r#"{"cniVersion":"0.3.1"}"#;
            bin.script(name, &format!("cat >{}\necho '{said}'\n", told.display()))?;
        }
        let output = CniCall::new("ADD", "c1", "/run/netns/x", bin.path()).run(bin.plugin(), &config.to_string())?;
        if !output.status.success() {
            let error: Value = serde_json::from_slice(&output.stdout).context("it failed without CNI's error object")?;
            ensure!(error.get("code").is_some_and(Value::is_u64) && !told.exists(), "{error}");
            return Ok(Rendered::Refused);
        }
        let Ok(told) = fs::read_to_string(told) else { bail!("it called no delegate, and did not fail") };
        ensure!(fs::read_to_string(data.join("c1"))? == told, "it keeps something else than it told its delegate");
        Ok(Rendered::Config(serde_json::from_str(&told)?))
    }
}
