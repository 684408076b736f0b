use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lease::store::kube::NodeRef;
use overlay::RouteTable;

use super::*;

fn run_with(words: &[&str], environment: &[(&str, &str)]) -> Result<Invocation, String> {
    let lookup = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    parse(words.iter().map(OsString::from), lookup).map_err(|error| error.to_string())
}

fn run(words: &[&str]) -> Result<Invocation, String> {
    run_with(words, &[])
}

fn agent(words: &[&str]) -> Options {
    match run(&[&["loden", "agent"], words].concat()) {
        Ok(Invocation::Agent(options)) => *options,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn refused(words: &[&str]) -> String {
    let error = run(&[&["loden", "agent"], words].concat()).unwrap_err();
    assert!(!error.contains('\n'), "more than a line: {error}");
    error
}

#[test]
fn without_flags_everything_is_as_flanneld_has_it() {
    let options = agent(&[]);
    let etcd = options.store.etcd().unwrap();
    let endpoints: Vec<String> = etcd.endpoints.iter().map(Endpoint::to_string).collect();
    assert_eq!(endpoints, ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]);
    assert_eq!(etcd.prefix.as_str(), "/coreos.com/network");
    assert_eq!((&etcd.ca_file, &etcd.identity, &etcd.credentials), (&None, &None, &None));
    assert!(options.interface.selectors.is_empty() && options.interface.patterns.is_empty());
    assert_eq!((options.interface.can_reach, options.interface.public_ip, options.interface.public_ipv6), (None, None, None));
    assert_eq!(options.subnet_file, Path::new("/run/flannel/subnet.env"));
    assert_eq!(options.renew_margin, Duration::from_secs(3600));
    assert_eq!((options.ip_masq, options.healthz, options.verbosity), (false, None, 0));
    assert_eq!(options.state_file.as_deref(), Some(Path::new("/var/lib/loden/state")));
    assert_eq!((options.routes.table, options.notrack), (None, false));
    assert_eq!(options.without_effect, [""; 0]);
}

#[test]
fn a_subnet_file_of_its_own_brings_a_state_file_of_its_own() {
    let state = |words: &[&str]| agent(words).state_file.map(|path| path.display().to_string());
    assert_eq!(state(&["--subnet-file=/run/flannel/two.env"]).unwrap(), "/var/lib/loden/state.run-flannel-two.env");
    assert_ne!(state(&["--subnet-file=/run/a-b"]), state(&["--subnet-file=/run/a/b"]));
    assert_ne!(state(&["--subnet-file=/run/a%2Db"]), state(&["--subnet-file=/run/a-b"]));
    assert_eq!(state(&["--subnet-file=/run/two.env", "--state-file=/var/two"]).unwrap(), "/var/two");
    assert_eq!(state(&["--subnet-file=/run/two.env", "--state-file=none"]), None);
}

#[test]
fn a_route_table_comes_with_its_rules_priority() {
    assert_eq!(agent(&["--route-table=52"]).routes.table, Some(RouteTable { id: 52, priority: 32_000 }));
    assert_eq!(agent(&["-route-table", "300", "-route-rule-priority", "100"]).routes.table, Some(RouteTable { id: 300, priority: 100 }));
    assert_eq!(agent(&["--route-table="]).routes.table, None);
    assert!(refused(&["--route-table=254"]).starts_with("--route-table: \"254\""));
    assert!(refused(&["--route-rule-priority=32766"]).starts_with("--route-rule-priority: \"32766\""));
}

#[test]
fn called_flanneld_the_program_is_the_agent() {
    let called = run(&["/opt/bin/flanneld", "-iface", "eth1", "--healthz-port=8080", "-v=6"]);
    let Ok(Invocation::Agent(options)) = called else { panic!("{called:?}") };
    assert_eq!(options.interface.selectors, [IfaceSelector::Name("eth1".to_owned())]);
    assert_eq!(options.healthz, Some((Ipv4Addr::UNSPECIFIED, 8080).into()));
    assert_eq!(options.verbosity, 6);
    assert!(matches!(run(&["flanneld"]), Ok(Invocation::Agent(_))));
    assert!(run(&["flanneld", "status"]).is_err());
}

#[test]
fn interfaces_and_patterns_keep_their_order() {
    let options =
        agent(&["--iface=eth1", "--iface-regex", "^10\\.", "--iface", "10.0.0.1", "--iface-regex=eth.*", "--iface-can-reach=8.8.8.8"]);
    assert_eq!(options.interface.selectors, [IfaceSelector::Name("eth1".into()), IfaceSelector::Address([10, 0, 0, 1].into())]);
    let patterns: Vec<&str> = options.interface.patterns.iter().map(regex::Regex::as_str).collect();
    assert_eq!(patterns, ["^10\\.", "eth.*"]);
    assert_eq!(options.interface.can_reach, Some(IpAddr::from([8, 8, 8, 8])));
}

#[test]
fn the_environment_stands_in_and_a_bad_value_there_names_the_variable() {
    let Ok(Invocation::Agent(options)) = run_with(&["flanneld"], &[("FLANNELD_ETCD_PREFIX", "/other"), ("FLANNELD_IP_MASQ", "T")]) else {
        panic!("refused")
    };
    assert_eq!((options.store.etcd().unwrap().prefix.as_str(), options.ip_masq), ("/other", true));
    let error = run_with(&["flanneld"], &[("FLANNELD_SUBNET_LEASE_RENEW_MARGIN", "1440")]).unwrap_err();
    assert_eq!(error, "FLANNELD_SUBNET_LEASE_RENEW_MARGIN: \"1440\" is no renewal margin: 1 to 1439 minutes are possible");
    let error = run_with(&["flanneld"], &[("FLANNELD_IP_MASQ", "maybe")]).unwrap_err();
    assert!(error.starts_with("FLANNELD_IP_MASQ: \"maybe\""), "{error}");
}

#[test]
fn a_bad_flag_or_value_is_one_line_that_names_it_and_the_remedy() {
    assert_eq!(refused(&["--ifcae=eth0"]), "unknown flag --ifcae: --iface is the nearest");
    assert_eq!(refused(&["--zzzzzz"]), "unknown flag --zzzzzz: see --help");
    assert_eq!(refused(&["--healthz-port=70000"]), "--healthz-port: \"70000\" is no port: a number from 0 to 65535 is wanted");
    assert_eq!(refused(&["--ip-masq=yes"]), "--ip-masq: \"yes\" is neither true nor false");
    assert_eq!(refused(&["--etcd-endpoints=http://a:1,"]), refused(&["--etcd-endpoints="]));
    assert!(refused(&["--etcd-endpoints", "10.0.0.1:2379"]).contains("write http://10.0.0.1:2379"));
    assert!(refused(&["--iface-regex=("]).contains("unclosed group"));
    assert!(refused(&["--subnet-file=/run/"]).starts_with("--subnet-file:"));
    assert!(refused(&["--v=lots"]).starts_with("--v: \"lots\""));
    assert!(refused(&["--healthz-ip=localhost"]).contains("\"localhost\" is no IP address"));
    assert!(refused(&["--iptables-resync=5s"]).starts_with("--iptables-resync:"));
    assert!(!refused(&["--x\n\u{1b}[31m"]).contains(char::is_control));
    assert!(refused(&["--iface"]).contains("--iface needs a value"));
}

#[test]
fn flags_that_need_each_other_say_so() {
    assert!(refused(&["--etcd-certfile=c"]).contains("--etcd-certfile needs --etcd-keyfile"));
    assert!(refused(&["--etcd-keyfile=c"]).contains("--etcd-keyfile needs --etcd-certfile"));
    assert!(refused(&["--etcd-username=u"]).contains("--etcd-username needs --etcd-password-file"));
    assert!(refused(&["--etcd-password=p"]).contains("--etcd-password needs --etcd-username"));
    assert!(refused(&["--etcd-username=u", "--etcd-password=p", "--etcd-password-file=f"]).contains("both given"));
    let secure = agent(&["--etcd-endpoints=https://a:2379", "--etcd-cafile=ca"]);
    assert_eq!(secure.without_effect, [""; 0]);
    assert_eq!(agent(&["--etcd-cafile=ca"]).without_effect, ["--etcd-cafile (no endpoint is https://)"]);
    assert_eq!(secure.store.etcd().unwrap().ca_file.as_deref(), Some(Path::new("ca")));
}

#[test]
fn a_password_comes_from_the_flag_or_from_a_file_of_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    let source = PasswordSource::File(path.clone());
    assert!(source.read().unwrap_err().to_string().contains("--etcd-password-file"));
    std::fs::write(&path, "hunter2\n").unwrap();
    assert_eq!(source.read().unwrap().reveal(), "hunter2");
    for bad in ["", "\n", "two\nlines\n", &"x".repeat(5000)] {
        std::fs::write(&path, bad).unwrap();
        assert!(source.read().is_err(), "{bad:?} was taken");
    }
    let options = agent(&["--etcd-username=u", "--etcd-password=hunter2"]);
    assert!(!format!("{options:?}").contains("hunter2"));
}

#[test]
fn flags_without_effect_are_taken_and_listed() {
    let options = agent(&["--ip-masq", "--kube-api-url=https://192.0.2.1", "--vmodule=", "--log_backtrace_at=a:1"]);
    assert_eq!(options.without_effect, ["--log_backtrace_at", "--kube-api-url (the store is etcd)"]);
    assert!(options.ip_masq);
}

fn in_kubernetes(words: &[&str], environment: &[(&str, &str)]) -> Result<Options, String> {
    match run_with(&[&["flanneld", "--kube-subnet-mgr"], words].concat(), environment)? {
        Invocation::Agent(options) => Ok(*options),
        other => panic!("{other:?}"),
    }
}

#[test]
fn in_kubernetes_the_node_is_known_from_the_environment_and_etcds_flags_say_nothing() {
    let kube = |environment: &[(&str, &str)]| match in_kubernetes(&[], environment).map(|options| options.store) {
        Ok(StoreOptions::Kube(kube)) => kube,
        other => panic!("{other:?}"),
    };
    let pod = [("POD_NAME", "kube-flannel-ds-x"), ("POD_NAMESPACE", "kube-flannel")];
    let of_pod = NodeRef::Pod { namespace: "kube-flannel".to_owned(), name: "kube-flannel-ds-x".to_owned() };
    assert_eq!(kube(&pod).reach.node, of_pod);
    assert_eq!(kube(&[("NODE_NAME", ""), pod[0], pod[1]]).reach.node, of_pod);
    let options = kube(&[("NODE_NAME", "n1"), pod[0]]);
    assert_eq!(options.reach.node, NodeRef::Name("n1".to_owned()));
    assert_eq!(options.reach.annotation_prefix, "flannel.alpha.coreos.com");
    assert_eq!(options.reach.net_config, Path::new("/etc/kube-flannel/net-conf.json"));
    assert!(options.set_network_available);
    for short in [&pod[..1], &[]] {
        assert!(in_kubernetes(&[], short).unwrap_err().contains("NODE_NAME"));
    }
    let both = in_kubernetes(&["--etcd-prefix=/x"], &[("NODE_NAME", "n1"), ("FLANNELD_ETCD_ENDPOINTS", "http://a:2379")]).unwrap();
    assert_eq!(both.without_effect, ["--etcd-prefix (the store is Kubernetes)", "--etcd-endpoints (the store is Kubernetes)"]);
}

#[test]
fn the_other_commands_take_the_agents_command_line() {
    let words = ["--iface=eth1", "--etcd-prefix=/x", "--ip-masq", "--healthz-port=1"];
    for (command, wanted) in [("plan", "Plan"), ("release", "Release"), ("cleanup", "Cleanup")] {
        let done = run(&[&["loden", command], &words[..]].concat()).unwrap();
        assert!(format!("{done:?}").starts_with(wanted), "{done:?}");
    }
    let handover = |words: &[&str]| match run(&[&["loden", "cleanup"], words].concat()) {
        Ok(Invocation::Cleanup(_, cleanup)) => cleanup.handover,
        other => panic!("{words:?}: {other:?}"),
    };
    assert_eq!(handover(&["--subnet-file=/run/x"]), None);
    assert_eq!(handover(&["--handover"]), Some(Duration::ZERO));
    assert_eq!(handover(&["-wait", "5", "-handover", "-etcd-prefix=/x"]), Some(Duration::from_secs(5)));
    assert!(run(&["loden", "cleanup", "--wait=5"]).unwrap_err().contains("--handover"));
    let done = run(&["loden", "status", "-json", "--subnet-file", "/tmp/x.env"]);
    let Ok(Invocation::Status(options)) = done else { panic!("{done:?}") };
    assert_eq!(options, StatusOptions { subnet_file: PathBuf::from("/tmp/x.env"), json: true });
    assert!(run(&["loden", "status", "--iface=eth0"]).is_err());
}

#[test]
fn the_version_is_asked_for_in_every_usual_way() {
    for words in [
        &["loden", "version"][..],
        &["loden", "--version"],
        &["loden", "-version"],
        &["flanneld", "-version"],
        &["loden", "agent", "--version"],
    ] {
        assert!(matches!(run(words), Ok(Invocation::Version)), "{words:?}");
    }
}

#[test]
fn a_missing_or_unknown_command_is_answered_with_the_commands() {
    assert!(run(&["loden"]).unwrap_err().contains("agent, status, plan"));
    assert_eq!(run(&["loden", "statsu"]).unwrap_err(), "\"statsu\" is no command: status is the nearest");
    assert!(run(&["loden", "--iface=eth0"]).unwrap_err().contains("loden agent --iface=eth0"));
}

#[test]
fn help_groups_every_flag_with_its_default_and_explains_the_environment() {
    for words in [&["loden", "agent", "-h"][..], &["flanneld", "--help"], &["loden", "help", "agent"]] {
        let Ok(Invocation::Help(text)) = run(words) else { panic!("{words:?}: no help") };
        for wanted in [
            "Store (etcd v3):",
            "Interface",
            "Health:",
            "Store (Kubernetes):",
            "Accepted without effect:",
            "[default: /coreos.com/network]",
            "FLANNELD_ETCD_PREFIX",
        ] {
            assert!(text.contains(wanted), "{words:?} lacks {wanted:?}:\n{text}");
        }
    }
    for words in [&["loden", "--help"][..], &["loden", "help"], &["loden", "plan", "-help"], &["loden", "status", "--help"]] {
        assert!(matches!(run(words), Ok(Invocation::Help(_))), "{words:?}");
    }
}

proptest::proptest! {
    /// What the fuzz target `flags` asks for, at every test run.
    #[test]
    fn any_words_and_any_variables_give_a_command_or_one_line(
        command in proptest::sample::select(vec!["loden", "agent", "status", "plan", "help", "-v", "", "\u{1b}"]),
        words in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..12), 0..4),
        flags in proptest::collection::vec("-{1,2}(etcd-endpoints|iface-regex|healthz-port|v|json|subnet-file|public-ip)(=.{0,8})?", 0..4),
    ) {
        use std::os::unix::ffi::OsStringExt;
        let odd = words.into_iter().map(OsString::from_vec);
        let line: Vec<OsString> = ["loden", command].map(OsString::from).into_iter().chain(flags.iter().map(OsString::from)).chain(odd).collect();
        let variable = line.last().cloned();
        for environment in [None, variable] {
            if let Err(error) = parse(line.clone(), |_| environment.clone()) {
                proptest::prop_assert!(!error.to_string().contains(char::is_control), "{error}");
            }
        }
    }
}
