//! Settings as an operator meets them: layers, refusals, the help, and the files in `config/`.
//!
//! Nothing here starts a process: arguments, environment and files are handed to `Settings::load` as values.

use kringle::config::{
    ConfigError, DataFolder, Durability, Fallback, Heading, Health, Load, LogFormat, Origin, PeerUrl, SETTINGS,
    Settings, VALUE_BYTES_MAX, Wanted,
};
use kringle::placement::Mode;
use proptest::prelude::*;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILE: &str = "node.toml";

/// Loads with flags, an environment, and a file `node.toml` that is named unless it is empty.
fn load_all(flags: &[&str], environment: &[(&str, &str)], file: &str) -> Result<Load, ConfigError> {
    let named = if file.is_empty() { &[][..] } else { &["--config", FILE][..] };
    let args = ["kringle"].iter().chain(named).chain(flags).copied();
    Settings::load(args, environment.iter().copied(), |path| {
        assert_eq!(path, Path::new(FILE));
        Ok(file.to_owned())
    })
}

fn settings(flags: &[&str], environment: &[(&str, &str)], file: &str) -> Settings {
    match load_all(flags, environment, file) {
        Ok(Load::Run(settings)) => *settings,
        other => panic!("{flags:?} {environment:?} {file:?} should run a node, not {other:?}"),
    }
}

fn flags(flags: &[&str]) -> Settings {
    settings(flags, &[], "")
}

/// The one line that refuses all this.
fn refusal(flags: &[&str], environment: &[(&str, &str)], file: &str) -> String {
    match load_all(flags, environment, file) {
        Err(error) => {
            let line = error.to_string();
            assert!(!line.contains('\n') && !line.contains('\r'), "more than one line: {line:?}");
            assert!(line.starts_with("kringle: "), "{line}");
            line
        }
        Ok(load) => panic!("{flags:?} {environment:?} {file:?} should be refused, not {load:?}"),
    }
}

fn origin(settings: &Settings, name: &str) -> Origin {
    settings.sources().iter().find(|source| source.name == name).unwrap().origin.clone()
}

fn urls(peers: &[PeerUrl]) -> Vec<&str> {
    peers.iter().map(PeerUrl::url).collect()
}

#[test]
fn without_a_word_a_durable_node_listens_on_loopback_port_8001() {
    let settings = flags(&[]);
    assert_eq!((settings.port, settings.host.to_string().as_str()), (8001, "127.0.0.1"));
    assert_eq!(settings.own_url(8001).url(), "http://127.0.0.1:8001");
    assert_eq!(settings.own_url(8001).name(), "http://localhost:8001");
    assert!(settings.peers.is_empty() && !settings.insecure && settings.config.is_none());
    assert_eq!((settings.ping_period, settings.timeout), (Duration::from_secs(1), Duration::from_secs(5)));
    assert_eq!((settings.replicas, settings.mode), (3, Mode::Sloppy));
    assert_eq!((settings.w, settings.r), (Wanted::Majority, Wanted::Majority));
    assert_eq!(settings.data.path(8001), Some(PathBuf::from("./data/8001")));
    assert_eq!(settings.durability, Durability::Sync);
    assert_eq!((settings.value_bytes_max, settings.key_bytes_max), (8 << 20, 4096));
    assert_eq!(settings.hint_bytes_max, 256 << 20);
    assert_eq!((settings.log.as_str(), settings.log_format), ("info", LogFormat::Text));
    assert_eq!((settings.cluster.as_str(), settings.connections_max), ("kringle", 10_000));
    assert!(settings.workers >= 1);
    assert_eq!(settings.warnings(), Vec::<String>::new());
    assert_eq!(settings.summary(), "all settings at their defaults");
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file_which_wins_over_the_default() {
    // One setting of every type: its name, three texts, and how the settings show the chosen one.
    type Shown = fn(&Settings) -> String;
    let table: &[(&str, [&str; 3], Shown)] = &[
        ("port", ["1", "2", "3"], |s| s.port.to_string()),
        ("host", ["127.0.0.2", "::1", "localhost"], |s| s.host.for_socket()),
        ("timeout", ["0.5", "1.5", "2.5"], |s| s.timeout.as_secs_f64().to_string()),
        ("peers", ["http://a:1", "http://b:2", "http://c:3"], |s| s.peers.nodes[0].to_string()),
        ("advertise", ["a", "b", "c"], |s| s.advertise.as_ref().unwrap().host.to_string()),
        ("data", ["x", "y", "z"], |s| s.data.path(1).unwrap().display().to_string()),
        ("replicas", ["4", "5", "6"], |s| s.replicas.to_string()),
        ("w", ["1", "2", "3"], |s| s.w.to_string()),
        ("durability", ["none", "interval:5", "interval:6"], |s| s.durability.to_string()),
        ("value-max", ["1", "2", "3"], |s| s.value_bytes_max.to_string()),
        ("cluster", ["a", "b", "c"], |s| s.cluster.clone()),
        ("log", ["warn", "error", "off"], |s| s.log.clone()),
        ("workers", ["7", "8", "9"], |s| s.workers.to_string()),
    ];
    for (name, [low, middle, high], shown) in table {
        let flag = format!("--{name}={high}");
        let variable = format!("KRINGLE_{}", name.to_uppercase().replace('-', "_"));
        let (environment, file) = ([(variable.as_str(), *middle)], format!("\n{name} = \"{low}\""));
        let from_file = settings(&[], &[], &file);
        assert_eq!(shown(&from_file), *low, "{name} from the file");
        assert_eq!(origin(&from_file, name), Origin::File { path: FILE.into(), line: 2 });
        let from_environment = settings(&[], &environment, &file);
        assert_eq!(shown(&from_environment), *middle, "{name} from the environment");
        assert_eq!(origin(&from_environment, name), Origin::Environment);
        let from_flag = settings(&[&flag], &environment, &file);
        assert_eq!(shown(&from_flag), *high, "{name} from the flag");
        assert_eq!(origin(&from_flag, name), Origin::Flag);
        assert_eq!(origin(&flags(&[]), name), Origin::Default);
    }
}

#[test]
fn a_switch_can_be_switched_off_by_a_higher_layer() {
    assert_eq!(flags(&["--memory"]).data, DataFolder::Memory);
    assert_eq!(settings(&["--memory=false"], &[("KRINGLE_MEMORY", "1")], "").data, DataFolder::Default);
    assert_eq!(settings(&[], &[("KRINGLE_MEMORY", "no")], "memory = true").data, DataFolder::Default);
    assert_eq!(settings(&[], &[], "memory = true").data, DataFolder::Memory);
    assert_eq!(
        refusal(&[], &[("KRINGLE_MEMORY", "maybe")], ""),
        "kringle: environment KRINGLE_MEMORY: \"maybe\" is not true or false"
    );
}

#[test]
fn data_and_memory_together_are_refused_unless_one_overrules_the_other() {
    let both = "is a folder to keep data in, and --memory asks to keep none: choose one of the two";
    assert_eq!(refusal(&["--data", "x", "--memory"], &[], ""), format!("kringle: --data: \"x\" {both}"));
    assert_eq!(
        refusal(&[], &[("KRINGLE_DATA", "x"), ("KRINGLE_MEMORY", "1")], ""),
        format!("kringle: environment KRINGLE_DATA: \"x\" {both}")
    );
    assert_eq!(refusal(&[], &[], "memory = true\ndata = 'x'"), format!("kringle: node.toml:2: data: \"x\" {both}"));
    assert_eq!(settings(&["--memory"], &[("KRINGLE_DATA", "x")], "").data, DataFolder::Memory);
    assert_eq!(settings(&["--data", "x"], &[("KRINGLE_MEMORY", "1")], "").data, DataFolder::At("x".into()));
}

#[test]
fn the_default_folder_follows_the_bound_port_when_port_0_was_asked_for() {
    let settings = flags(&["--port", "0"]);
    assert_eq!(settings.data, DataFolder::Default);
    assert_eq!(settings.data.path(40123), Some(PathBuf::from("./data/40123")));
    assert_eq!(settings.own_url(40123).url(), "http://127.0.0.1:40123");
    assert_eq!(flags(&["--memory"]).data.path(1), None);
}

#[test]
fn a_toml_value_may_be_written_in_any_natural_form() {
    let settings = settings(
        &[],
        &[],
        "port = 0x1F41\ntimeout = 2.5\npingfreq = 2\npeers = ['a', 'b:1']\nvalue-max = 1_000_000\nw = 2\nr = 'majority'",
    );
    assert_eq!((settings.port, settings.value_bytes_max, settings.w), (8001, 1_000_000, Wanted::Owners(2)));
    assert_eq!((settings.timeout, settings.ping_period), (Duration::from_millis(2500), Duration::from_secs(2)));
    assert_eq!(urls(&settings.peers.nodes), ["http://a:8001", "http://b:1"]);
}

#[test]
fn every_kind_of_nonsense_is_refused_in_one_line() {
    let port = "is not a port from 0 to 65535";
    let seconds = "is not a number of seconds greater than 0";
    let size = "is not a size such as 8MiB, 512KiB or 1048576 (bytes)";
    let wanted = "is not \"majority\" or a number of owners from 1 to --replicas";
    let durability = "is not a durability: sync, interval:<1 to 60000 milliseconds> or none";
    let name = "is not a name of 1 to 64 visible ASCII characters";
    let long = "x".repeat(65);
    let table = [
        ("port", "abc", port),
        ("port", "65536", port),
        ("port", "-1", port),
        ("port", "", port),
        ("port", "+80", port),
        ("host", "", "is not a host name or an IP address"),
        ("host", "http://localhost", "is not a host name or an IP address"),
        ("host", "256.1.1.1", "is not a host name or an IP address"),
        ("timeout", "abc", seconds),
        ("timeout", "0", seconds),
        ("timeout", "-1", seconds),
        ("timeout", "NaN", seconds),
        ("timeout", "inf", seconds),
        ("timeout", "3601", "is more than 3600 seconds"),
        ("pingfreq", "0.0001", "is less than 0.001 seconds"),
        ("pingfreq", "1s", seconds),
        ("replicas", "0", "is not a number of owners from 1 to 16"),
        ("replicas", "17", "is not a number of owners from 1 to 16"),
        ("mode", "quantum", "is not a mode: sloppy, async, quorum, sync or chain"),
        ("w", "0", wanted),
        ("r", "most", wanted),
        ("w", "4", "is more than --replicas 3"),
        ("r", "4", "is more than --replicas 3"),
        ("durability", "interval:0", durability),
        ("durability", "interval:60001", durability),
        ("durability", "interval:", durability),
        ("durability", "always", durability),
        ("value-max", "lots", size),
        ("value-max", "8MB", size),
        ("value-max", "65MiB", "is more than the limit of 64MiB"),
        ("value-max", "0", "is no room for even one byte"),
        ("hint-max-bytes", "2MB", size),
        ("hint-max-bytes", "1025GiB", "is more than the limit of 1024GiB"),
        ("transfer-rate", "fast", size),
        ("transfer-rate", "1023KiB", "is less than 1MiB a second"),
        ("transfer-rate", "1025GiB", "is more than the limit of 1024GiB"),
        ("peers", "dns+http://10.0.0.1:8001", "is an address, which need not be asked for; write http:// before it"),
        ("peers", "dns+https://n", "has a scheme other than http"),
        ("key-max", "4097", "is more than the limit of 4KiB"),
        ("cluster", "two words", name),
        ("cluster", &long, name),
        ("cluster", "", name),
        ("workers", "0", "is not a number of threads from 1 to 256"),
        ("max-connections", "0", "is not a number of connections from 1 to 1000000"),
        ("max-watchers", "0", "is not a number of watchers from 1 to 100000"),
        ("max-keys", "0", "is not a number of keys from 1 to 1000000000000"),
        ("max-keys", "many", "is not a number of keys from 1 to 1000000000000"),
        ("max-load", "0", "is not a number of requests a second from 1 to 1000000000"),
        ("data", "", "is not a path"),
        (
            "log",
            "loud",
            "is not a log filter: off, error, warn, info, debug or trace, or a list such as warn,kringle=debug",
        ),
        ("log-format", "xml", "is not a log format: text or json"),
        ("advertise", "ftp://node1", "has a scheme other than http"),
    ];
    for (name, text, because) in table {
        let line = refusal(&[&format!("--{name}={text}")], &[], "");
        assert_eq!(line, format!("kringle: --{name}: {text:?} {because}"));
    }
}

#[test]
fn the_network_may_be_cut_on_purpose_only_where_nobody_else_reaches_the_node() {
    assert!(!flags(&[]).faults);
    assert_eq!(flags(&["--faults"]).warnings().len(), 1);
    let line = refusal(&["--faults", "--host", "0.0.0.0", "--insecure"], &[], "");
    assert!(line.starts_with("kringle: --faults: "), "{line}");
}

#[test]
fn a_refusal_names_the_layer_that_has_the_nonsense() {
    let because = "\"abc\" is not a number of seconds greater than 0";
    assert_eq!(refusal(&["--timeout", "abc"], &[], ""), format!("kringle: --timeout: {because}"));
    assert_eq!(
        refusal(&[], &[("KRINGLE_TIMEOUT", "abc")], ""),
        format!("kringle: environment KRINGLE_TIMEOUT: {because}")
    );
    assert_eq!(refusal(&[], &[], "\n\ntimeout = 'abc'"), format!("kringle: node.toml:3: timeout: {because}"));
    assert_eq!(
        refusal(&["--replicas", "1"], &[("KRINGLE_W", "2")], ""),
        "kringle: environment KRINGLE_W: \"2\" is more than --replicas 1"
    );
}

#[test]
fn a_line_break_in_a_value_does_not_become_one_in_the_error() {
    assert_eq!(
        refusal(&["--mode", "a\nb"], &[], ""),
        "kringle: --mode: \"a\\nb\" is not a mode: sloppy, async, quorum, sync or chain"
    );
    refusal(&["--what\never"], &[], "");
    refusal(&["a\nb"], &[], "");
    refusal(&[], &[("KRINGLE_A\nB", "1")], "");
    refusal(&[], &[], "\"a\\nb\" = 1");
    let long = refusal(&["--mode", &"x".repeat(10_000)], &[], "");
    assert!(long.len() < 200, "{long}");
}

#[test]
fn an_unknown_flag_is_refused_with_the_one_that_was_meant() {
    assert_eq!(refusal(&["--prot", "1"], &[], ""), "kringle: unexpected argument '--prot' found; did you mean --port?");
    let table: &[(&[&str], &str)] = &[
        (&["--nonsense"], "unexpected argument '--nonsense' found"),
        (&["healht"], "'healht'"),
        (&["--port"], "a value is required for '--port <PORT>' but none was supplied"),
        (&["--port", "1", "--port", "2"], "the argument '--port <PORT>' cannot be used multiple times"),
        (&["--data", "--memory"], "a value is required for '--data <FOLDER>'"),
        (&["health", "--port", "1"], "unexpected argument '--port' found"),
        (&["--port", "1", "health"], "health takes no flags of a node, only --url"),
        (&["--memory", "yes"], "unrecognized subcommand 'yes'; see kringle --help"),
    ];
    for (flags, said) in table {
        let line = refusal(flags, &[], "");
        assert!(line.contains(said), "{flags:?}: {line}");
    }
}

#[test]
fn an_unknown_key_in_a_file_is_refused_by_name_and_line() {
    assert_eq!(
        refusal(&[], &[], "port = 1\n\nvalue_max = 5\nzzz = 1"),
        "kringle: node.toml:3: value_max: no such setting; did you mean value-max?"
    );
    assert_eq!(refusal(&[], &[], "colour = 'red'"), "kringle: node.toml:1: colour: no such setting");
    assert_eq!(refusal(&[], &[], "x = 1"), "kringle: node.toml:1: x: no such setting");
    assert_eq!(refusal(&[], &[], "config = 'more.toml'"), "kringle: node.toml:1: config: no such setting");
    assert_eq!(refusal(&[], &[], "[section]\nport = 1"), "kringle: node.toml:1: section: no such setting");
    assert_eq!(
        refusal(&[], &[], "[peers]\na = 1"),
        "kringle: node.toml:1: peers: \"a\" is inside a table, and settings are not grouped in tables"
    );
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    for (file, place) in
        [("port = 1\nport = 2", "node.toml:2: "), ("port = 1\n= 3", "node.toml:2: "), ("{", "node.toml:1: ")]
    {
        let line = refusal(&[], &[], file);
        assert!(line.starts_with(&format!("kringle: {place}")), "{line}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_refused_by_whoever_named_it() {
    let missing = |_: &Path| Err(io::Error::new(io::ErrorKind::NotFound, "no such file"));
    let none = std::iter::empty::<(&str, &str)>();
    let error = Settings::load(["kringle", "--config", "gone.toml"], none, missing).unwrap_err();
    assert_eq!(error.to_string(), "kringle: --config: gone.toml: no such file");
    let error = Settings::load(["kringle"], [("KRINGLE_CONFIG", "gone.toml")], missing).unwrap_err();
    assert_eq!(error.to_string(), "kringle: environment KRINGLE_CONFIG: gone.toml: no such file");
}

#[test]
fn a_misspelt_variable_is_refused_with_the_one_that_was_meant() {
    assert_eq!(
        refusal(&[], &[("KRINGLE_PROT", "1")], ""),
        "kringle: environment KRINGLE_PROT: no such setting; did you mean KRINGLE_PORT?"
    );
    assert_eq!(
        refusal(&[], &[("KRINGLE_VALUEMAX", "1")], ""),
        "kringle: environment KRINGLE_VALUEMAX: no such setting; did you mean KRINGLE_VALUE_MAX?"
    );
    assert_eq!(refusal(&[], &[("KRINGLE_COLOUR", "1")], ""), "kringle: environment KRINGLE_COLOUR: no such setting");
}

#[test]
fn variables_of_others_are_left_alone() {
    let environment = [
        ("PATH", "/bin"),
        ("PORT", "99"),
        ("kringle_port", "99"),
        ("KRINGLE_TEST_SEED", "1"),
        ("KRINGLE_URL", "http://elsewhere"),
        // An empty variable is what a compose file leaves of one that is not set.
        ("KRINGLE_TIMEOUT", ""),
        ("KRINGLE_COLOUR", ""),
        // What Kubernetes tells every container about a service called kringle, and one called kringle-0.
        ("KRINGLE_PORT", "tcp://10.0.0.1:8001"),
        ("KRINGLE_PORT_8001_TCP", "tcp://10.0.0.1:8001"),
        ("KRINGLE_PORT_8001_TCP_ADDR", "10.0.0.1"),
        ("KRINGLE_SERVICE_HOST", "10.0.0.1"),
        ("KRINGLE_SERVICE_PORT", "8001"),
        ("KRINGLE_SERVICE_PORT_HTTP", "8001"),
        ("KRINGLE_0_PORT", "tcp://10.0.0.1:8001"),
        ("KRINGLE_0_SERVICE_HOST", "10.0.0.1"),
    ];
    assert_eq!(settings(&[], &environment, "").summary(), "all settings at their defaults");
}

#[cfg(unix)]
#[test]
fn bytes_that_are_not_utf_8_are_refused() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let junk = || OsString::from_vec(vec![b'a', 0xff]);
    let unread = |_: &Path| unreachable!();
    let error = Settings::load(["kringle"], [("KRINGLE_DATA", junk())], unread).unwrap_err().to_string();
    assert_eq!(error, "kringle: environment KRINGLE_DATA: \"a\u{fffd}\" is not UTF-8");
    let none = std::iter::empty::<(&str, &str)>();
    let error = Settings::load(["kringle".into(), "--data".into(), junk()], none, unread).unwrap_err().to_string();
    assert!(error.contains("invalid UTF-8") && !error.contains('\n'), "{error}");
}

#[test]
fn peers_are_tolerated_in_every_form_people_write() {
    let table: &[(&str, &[&str])] = &[
        ("", &[]),
        (" , ,", &[]),
        ("node2", &["http://node2:8001"]),
        ("node2:9000", &["http://node2:9000"]),
        ("http://node2:9000", &["http://node2:9000"]),
        (" http://node2:9000/ ,node3/ ", &["http://node2:9000", "http://node3:8001"]),
        ("HTTP://Node2:9000//", &["http://node2:9000"]),
        ("node2,node2:8001,http://NODE2/", &["http://node2:8001"]),
        ("10.0.0.1,10.0.0.1:8001", &["http://10.0.0.1:8001"]),
        ("[2001:DB8:0::1]:9,[2001:db8::1]:9", &["http://[2001:db8::1]:9"]),
        ("localhost:8002,127.0.0.1:8002,[::1]:8002", &["http://localhost:8002"]),
        ("[::1]:8002,localhost:8002", &["http://[::1]:8002"]),
        ("[::ffff:127.0.0.1]:8002", &["http://127.0.0.1:8002"]),
        ("127.0.0.2:8002,127.0.0.1:8002", &["http://127.0.0.2:8002", "http://127.0.0.1:8002"]),
        ("kringle_1.my-net.example:80", &["http://kringle_1.my-net.example:80"]),
    ];
    for (text, wanted) in table {
        assert_eq!(urls(&flags(&["--peers", text]).peers.nodes), *wanted, "{text:?}");
    }
}

#[test]
fn nonsense_among_the_peers_is_refused_by_the_entry() {
    let port = "has no valid port (1 to 65535)";
    let table = [
        ("https://node2", "has a scheme other than http"),
        ("ftp://node2", "has a scheme other than http"),
        ("://node2", "has a scheme other than http"),
        ("http://node2/path", "has a path; a node's URL is http://host:port"),
        ("node2:8001/kv/", "has a path; a node's URL is http://host:port"),
        ("node2?x=1", "has a query or a fragment; a node's URL is http://host:port"),
        ("node2:8001#top", "has a query or a fragment; a node's URL is http://host:port"),
        ("http://", "names no host"),
        ("http://:8001", "names no host"),
        (":8001", "names no host"),
        ("/", "names no host"),
        ("node2:", port),
        ("node2:0", port),
        ("node2:65536", port),
        ("node2:http", port),
        ("node2:+1", port),
        ("node2:80 01", port),
        ("[::1]8001", port),
        ("[::1]:", port),
        ("::1", "has too many colons; an IPv6 address stands in brackets, as in http://[::1]:8001"),
        ("node2:1:2", "has too many colons; an IPv6 address stands in brackets, as in http://[::1]:8001"),
        ("[::1", "has too many colons; an IPv6 address stands in brackets, as in http://[::1]:8001"),
        ("[::g]:8001", "names no valid host"),
        ("[fe80::1%eth0]:8001", "names no valid host"),
        ("node 2", "names no valid host"),
        ("nöde", "names no valid host"),
        ("-node", "names no valid host"),
        ("node..example", "names no valid host"),
        ("1.2.3", "names no valid host"),
        ("300.1.1.1", "names no valid host"),
        ("0.0.0.0:8001", "stands for every address of a machine; name one that the other nodes can reach"),
        ("[::]:8001", "stands for every address of a machine; name one that the other nodes can reach"),
    ];
    for (entry, because) in table {
        let line = refusal(&["--peers", &format!("node1, {entry} ,node3")], &[], "");
        assert_eq!(line, format!("kringle: --peers: {entry:?} {because}"));
    }
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    let line = refusal(&["--peers", "http://me:s3cret@node2:8001"], &[], "");
    assert_eq!(line, "kringle: --peers: \"***@node2:8001\" names a user; a node's URL is http://host:port");
}

#[test]
fn a_node_finds_itself_among_its_peers() {
    let table: &[(&[&str], &str, &[&str])] = &[
        (&[], "localhost:8001,localhost:8002", &["http://localhost:8002"]),
        (&[], "127.0.0.1,[::1]:8001,node2", &["http://node2:8001"]),
        (&["--port", "9000"], "localhost:9000,localhost", &["http://localhost:8001"]),
        (&["--advertise", "node1"], "node1,node2,127.0.0.1:8001", &["http://node2:8001"]),
        (
            &["--host", "0.0.0.0", "--insecure", "--advertise", "node1"],
            "node1:8001,[::1]:8001,node2",
            &["http://node2:8001"],
        ),
        (&["--host", "10.0.0.1", "--insecure", "--advertise", "node1"], "10.0.0.1,10.0.0.2", &["http://10.0.0.2:8001"]),
    ];
    for (more, peers, wanted) in table {
        let settings = flags(&[more, &["--peers", peers][..]].concat());
        assert_eq!(urls(&settings.peers_besides_self(settings.port)), *wanted, "{more:?} {peers}");
    }
    let picked = flags(&["--port", "0", "--peers", "localhost:40123,localhost:40124"]);
    assert_eq!(urls(&picked.peers_besides_self(40123)), ["http://localhost:40124"]);
}

#[test]
fn a_node_advertises_what_it_is_told_or_where_it_listens() {
    let own = |more: &[&str]| flags(more).own_url(9000).url().to_owned();
    assert_eq!(own(&["--advertise", "http://Node1.example:80/"]), "http://node1.example:80");
    assert_eq!(own(&["--advertise", "node1"]), "http://node1:9000");
    assert_eq!(own(&["--host", "localhost"]), "http://localhost:9000");
    assert_eq!(own(&["--host", "::1"]), "http://[::1]:9000");
    assert_eq!(own(&["--host", "[::1]"]), "http://[::1]:9000");
    assert_eq!(own(&["--host", "10.0.0.1", "--insecure"]), "http://10.0.0.1:9000");
    assert_eq!(own(&["--host", "0.0.0.0", "--insecure"]), "http://127.0.0.1:9000");
    assert_eq!(own(&["--host", "::", "--insecure"]), "http://[::1]:9000");
}

#[test]
fn a_host_that_others_can_reach_needs_insecure_and_says_why() {
    for host in ["0.0.0.0", "::", "10.0.0.1", "node1", "[2001:db8::1]"] {
        assert_eq!(
            refusal(&["--host", host], &[], ""),
            format!(
                "kringle: --host: {host:?} is not a loopback address, and until there is a cluster secret anybody \
                 who reaches the port can read and write; add --insecure if only friends can"
            )
        );
        assert!(flags(&["--host", host, "--insecure"]).insecure);
    }
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "::1", "[::1]"] {
        assert!(!flags(&["--host", host]).insecure);
    }
}

#[test]
fn a_node_with_peers_that_listens_everywhere_must_say_where_it_is_reached() {
    let everywhere = ["--host", "0.0.0.0", "--insecure"];
    assert_eq!(
        refusal(&[&everywhere[..], &["--peers", "node2"]].concat(), &[], ""),
        "kringle: --host: \"0.0.0.0\" stands for every address of this machine, and the peers must be told one: add \
         --advertise http://<address or name>:<port>"
    );
    let alone = flags(&everywhere);
    assert!(alone.warnings().iter().any(|warning| warning.contains("--advertise")), "{:?}", alone.warnings());
    let line = refusal(&["--advertise", "0.0.0.0:8001"], &[], "");
    assert!(line.contains("stands for every address of a machine"), "{line}");
}

#[test]
fn what_may_surprise_is_warned_about() {
    let warns = |more: &[&str], said: &str| {
        let warnings = flags(more).warnings();
        assert!(warnings.iter().any(|warning| warning.contains(said)), "{more:?}: {warnings:?}");
    };
    warns(&["--peers", "node2"], "cannot reach this node");
    warns(&["--mode", "async", "--w", "2"], "count in mode sloppy");
    warns(&["--host", "10.0.0.1", "--insecure"], "anybody who reaches 10.0.0.1");
    warns(&["--memory"], "nothing is kept");
}

#[test]
fn the_summary_names_what_was_chosen_and_by_whom() {
    let settings = settings(&["--port", "8002"], &[("KRINGLE_TIMEOUT", "2.5")], "r = 1");
    assert_eq!(
        settings.summary(),
        "config node.toml (flag), port 8002 (flag), timeout 2.5 (environment), r 1 (node.toml:1)"
    );
    assert_eq!(settings.sources().len(), SETTINGS.len());
}

#[test]
fn wanted_owners_are_counted_from_the_owners_there_are() {
    let majorities: Vec<usize> = (1..=5).map(|owners| Wanted::Majority.of(owners)).collect();
    assert_eq!(majorities, [1, 2, 2, 3, 3]);
    assert_eq!(Wanted::Owners(2).of(1), 2);
}

#[test]
fn health_asks_the_node_that_would_run_here_unless_told() {
    let health = |more: &[&str], environment: &[(&str, &str)], file: &str| {
        let args = ["kringle", "health"].iter().chain(more).copied();
        match Settings::load(args, environment.iter().copied(), |_| Ok(file.to_owned())) {
            Ok(Load::Health(Health { url, timeout })) => (url.url().to_owned(), timeout.as_secs_f64()),
            other => panic!("{more:?} {environment:?} should ask for health, not {other:?}"),
        }
    };
    let url = |text: &str| (text.to_owned(), 5.0);
    assert_eq!(health(&[], &[], ""), url("http://127.0.0.1:8001"));
    assert_eq!(health(&["--url", "http://node2:9/"], &[("KRINGLE_PORT", "0")], ""), url("http://node2:9"));
    assert_eq!(health(&[], &[("KRINGLE_PORT", "9000")], ""), url("http://127.0.0.1:9000"));
    assert_eq!(health(&[], &[("KRINGLE_HOST", "0.0.0.0")], ""), url("http://127.0.0.1:8001"));
    assert_eq!(health(&[], &[("KRINGLE_HOST", "10.0.0.1")], ""), url("http://10.0.0.1:8001"));
    assert_eq!(health(&[], &[("KRINGLE_URL", "node3")], ""), url("http://node3:8001"));
    let (asked, timeout) = health(&[], &[("KRINGLE_CONFIG", "x")], "port = 7\ntimeout = 0.5");
    assert_eq!((asked.as_str(), timeout), ("http://127.0.0.1:7", 0.5));
    let line = refusal(&["health"], &[("KRINGLE_PORT", "0")], "");
    assert!(line.starts_with("kringle: environment KRINGLE_PORT: \"0\" is picked at start"), "{line}");
    assert_eq!(
        refusal(&["health", "--url", "https://x"], &[], ""),
        "kringle: --url: \"https://x\" has a scheme other than http"
    );
    assert_eq!(
        refusal(&["health"], &[("KRINGLE_URL", "x:y")], ""),
        "kringle: environment KRINGLE_URL: \"x:y\" has no valid port (1 to 65535)"
    );
}

fn said(flags: &[&str]) -> String {
    match load_all(flags, &[], "") {
        Ok(Load::Say(text)) => text,
        other => panic!("{flags:?} should print something, not {other:?}"),
    }
}

#[test]
fn the_help_has_every_setting_with_its_variable_and_default_in_80_columns() {
    let help = said(&["--help"]);
    assert_eq!(help, said(&["-h"]));
    assert_eq!(help, said(&["help"]));
    for setting in SETTINGS {
        let variable = format!("KRINGLE_{}", setting.name.to_uppercase().replace('-', "_"));
        assert!(help.contains(&format!("\n  --{}", setting.name)), "{}", setting.name);
        assert!(help.contains(&format!("[default: {}] [env: {variable}]", setting.fallback.said())), "{variable}");
    }
    for heading in Heading::ALL {
        assert!(help.contains(&format!("\n{}:\n", heading.title())), "{heading:?}");
    }
    assert!(help.contains("Examples:"));
    for line in help.lines().chain(said(&["health", "--help"]).lines()) {
        assert!(line.chars().count() <= 80 && line.trim_end() == line, "{line:?}");
    }
    assert!(said(&["health", "--help"]).contains("--url <URL>"));
}

#[test]
fn the_version_is_that_of_the_package() {
    assert_eq!(said(&["--version"]), format!("kringle {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(said(&["-V"]), said(&["--version"]));
}

fn in_config(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_reference_file_has_every_setting_with_its_default_and_nothing_else() {
    let text = in_config("kringle.toml");
    let reference = settings(&[], &[], &text);
    // A comment that begins like a key shows a setting whose default is a rule.
    let shown: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.split_once(" = "))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        .collect();
    for setting in SETTINGS.iter().filter(|setting| setting.name != "config") {
        let source = reference.sources().iter().find(|source| source.name == setting.name).unwrap();
        match setting.fallback {
            Fallback::Value(default) => {
                assert!(matches!(source.origin, Origin::File { .. }), "{} is missing", setting.name);
                assert_eq!(source.text, default, "{} states another default", setting.name);
            }
            Fallback::Rule(rule) => {
                assert_eq!(source.origin, Origin::Default, "{} has no value for a default", setting.name);
                assert!(shown.contains(&setting.name), "{} is missing", setting.name);
                assert!(text.contains(&format!("Default: {rule}")), "{} does not state its default", setting.name);
            }
        }
    }
    for name in shown {
        assert!(SETTINGS.iter().any(|setting| setting.name == name), "{name} is no setting");
    }
}

#[test]
fn the_reference_file_loads_with_its_examples_made_active() {
    let text = in_config("kringle.toml");
    let active: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(example) if SETTINGS.iter().any(|setting| example.starts_with(&format!("{} = ", setting.name))) => {
                example
            }
            _ => line,
        })
        .collect();
    let reference = settings(&[], &[], &active.join("\n"));
    let silent: Vec<&str> = (reference.sources().iter())
        .filter(|source| source.origin == Origin::Default)
        .map(|source| source.name)
        .collect();
    assert_eq!(silent, Vec::<&str>::new());
}

#[test]
fn the_trio_is_three_nodes_that_know_each_other() {
    let nodes: Vec<Settings> = (1..=3).map(|n| settings(&[], &[], &in_config(&format!("trio-{n}.toml")))).collect();
    for (index, node) in nodes.iter().enumerate() {
        assert_eq!(usize::from(node.port), 8001 + index);
        assert_eq!(node.peers_besides_self(node.port).len(), 2);
        assert_eq!(node.peers, nodes[0].peers);
        assert_eq!(node.cluster, nodes[0].cluster);
        assert!(node.peers.nodes.contains(&node.own_url(node.port)));
        assert_eq!(node.warnings(), Vec::<String>::new());
    }
}

proptest! {
    /// Any text in any setting, from any layer: settings within their limits or one line, never a panic.
    #[test]
    fn no_text_in_any_layer_panics(
        index in 1..SETTINGS.len(),
        layer in 0..4,
        text in prop_oneof![
            "\\PC{0,40}",
            "[-+]?[0-9.eE]{0,20}(KiB|MiB|MB|s|ms)?",
            "(https?://)?[a-zA-Z0-9.:@/?#\\[\\], _-]{0,40}",
            "(interval|sync|majority|true|info)[:=,]?[0-9a-z]{0,8}",
            any::<String>(),
        ],
    ) {
        let name = SETTINGS[index].name;
        let variable = format!("KRINGLE_{}", name.to_uppercase().replace('-', "_"));
        let flag = format!("--{name}={text}");
        let quoted = format!("{name} = {text:?}");
        let loaded = match layer {
            0 => load_all(&[&flag], &[], ""),
            1 => load_all(&[], &[(&variable, &text)], ""),
            2 => load_all(&[], &[], &quoted),
            _ => load_all(&[], &[], &format!("{name} = {text}")),
        };
        match loaded {
            Ok(Load::Run(settings)) => {
                prop_assert!((1..=VALUE_BYTES_MAX).contains(&settings.value_bytes_max));
                prop_assert!(settings.timeout > Duration::ZERO && settings.ping_period > Duration::ZERO);
                prop_assert!(!settings.summary().contains('\n'));
                settings.peers_besides_self(8001);
            }
            Ok(other) => prop_assert!(false, "{:?}", other),
            Err(error) => {
                let line = error.to_string();
                prop_assert!(line.starts_with("kringle: ") && !line.contains(['\n', '\r']), "{:?}", line);
            }
        }
    }
}
