//! The table of everything that can be set.

/// A row of [`SETTINGS`].
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag without its dashes, which is also the key in a file, and in capitals the variable `KRINGLE_…`.
    pub name: &'static str,
    /// What the flag's value is called in the help; empty for a switch, which needs none.
    pub value: &'static str,
    /// What holds if no layer says anything.
    pub fallback: Fallback,
    /// Where it stands in the help.
    pub heading: Heading,
    /// What it means, for the help: a sentence or two.
    pub help: &'static str,
}

/// What holds if no layer says anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    /// A value, read like any other.
    Value(&'static str),
    /// A rule that no value could express, in words.
    Rule(&'static str),
}

impl Fallback {
    /// The value or the rule, as an operator reads it.
    pub fn said(&self) -> &'static str {
        match self {
            Fallback::Value(text) | Fallback::Rule(text) => text,
        }
    }
}

/// The parts of the help and of the reference file, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heading {
    /// Where this node listens and how it is reached.
    Node,
    /// What it shares with its peers.
    Cluster,
    /// What it keeps and where.
    Storage,
    /// What it says about itself.
    Logging,
}

impl Heading {
    /// All of them.
    pub const ALL: [Heading; 4] = [Heading::Node, Heading::Cluster, Heading::Storage, Heading::Logging];

    /// The heading as printed.
    pub fn title(self) -> &'static str {
        match self {
            Heading::Node => "This node",
            Heading::Cluster => "Cluster",
            Heading::Storage => "Storage",
            Heading::Logging => "Logging",
        }
    }
}

/// The one setting a file cannot have: it names the file.
pub(super) const CONFIG: &str = "config";

/// Everything that can be set. To add a setting, add a row, read it in `Settings`, and describe it in
/// `config/kringle.toml`; whatever is forgotten, a test misses it.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: CONFIG,
        value: "FILE",
        fallback: Fallback::Rule("no file"),
        heading: Heading::Node,
        help: "A TOML file with any of these settings, named as here without the dashes; config/kringle.toml \
               explains them all",
    },
    Setting {
        name: "port",
        value: "PORT",
        fallback: Fallback::Value("8001"),
        heading: Heading::Node,
        help: "The port to listen on; 0 picks a free one and prints it",
    },
    Setting {
        name: "resp-port",
        value: "PORT",
        fallback: Fallback::Value("off"),
        heading: Heading::Node,
        help: "The port for clients that speak the Redis protocol, on the same address; 0 picks a free one and prints it; or off",
    },
    Setting {
        name: "host",
        value: "HOST",
        fallback: Fallback::Value("127.0.0.1"),
        heading: Heading::Node,
        help: "The address to listen on; any that others can reach needs --insecure",
    },
    Setting {
        name: "insecure",
        value: "",
        fallback: Fallback::Value("false"),
        heading: Heading::Node,
        help: "Listen beyond this machine although there is no cluster secret: anybody who reaches the port can \
               read and write everything",
    },
    Setting {
        name: "advertise",
        value: "URL",
        fallback: Fallback::Rule("from host and port"),
        heading: Heading::Node,
        help: "The URL that other nodes use for all traffic to this node",
    },
    Setting {
        name: "workers",
        value: "COUNT",
        fallback: Fallback::Rule("half the cores, at least 1"),
        heading: Heading::Node,
        help: "Threads that serve HTTP, 1 to 256",
    },
    Setting {
        name: "max-connections",
        value: "COUNT",
        fallback: Fallback::Value("10000"),
        heading: Heading::Node,
        help: "Client connections held at once, 1 to 1000000; more wait to be accepted",
    },
    Setting {
        name: "max-watchers",
        value: "COUNT",
        fallback: Fallback::Value("1000"),
        heading: Heading::Node,
        help: "Clients that may watch at once, of keys and of events each, 1 to 100000; more are refused",
    },
    Setting {
        name: "max-load",
        value: "COUNT",
        fallback: Fallback::Value("off"),
        heading: Heading::Node,
        help: "Requests of clients a second that the node is meant for, 1 to 1000000000, or off: /status shows \
               it beside what comes, and nothing is refused for it",
    },
    Setting {
        name: "cors-origin",
        value: "ORIGINS",
        fallback: Fallback::Rule("none"),
        heading: Heading::Node,
        help: "Sites whose pages may use the node from a browser, a comma list such as http://localhost:3000, or *",
    },
    Setting {
        name: "faults",
        value: "",
        fallback: Fallback::Value("false"),
        heading: Heading::Node,
        help: "Let PUT /faults cut the network between this node and others, to see what a cluster makes of it; only on a \
               loopback address",
    },
    Setting {
        name: "peers",
        value: "URLS",
        fallback: Fallback::Rule("none"),
        heading: Heading::Cluster,
        help: "The nodes to begin with, a comma list such as node1:8001,node2; http:// and :8001 may be left out, \
               and the node itself may be in it; dns+http://name:8001 stands for every address that DNS has for the name",
    },
    Setting {
        name: "join",
        value: "WHEN",
        fallback: Fallback::Value("auto"),
        heading: Heading::Cluster,
        help: "Whether a fresh node that meets a cluster joins it by itself: auto, or manual, when it waits for a POST to \
               /cluster/join",
    },
    Setting {
        name: "zone",
        value: "NAME",
        fallback: Fallback::Rule("none"),
        heading: Heading::Cluster,
        help: "What the node shares a fate with, such as a rack: copies of a key go to different zones first; taken when it \
               becomes a member, PUT /cluster/members changes it later",
    },
    Setting {
        name: "weight",
        value: "N",
        fallback: Fallback::Value("1"),
        heading: Heading::Cluster,
        help: "The node's capacity relative to the others', 1 to 64; taken when it becomes a member",
    },
    Setting {
        name: "evict-after",
        value: "SECONDS",
        fallback: Fallback::Value("600"),
        heading: Heading::Cluster,
        help: "How long a member may be down before the others remove it and take over its keys; 0.001 to 31536000, or never",
    },
    Setting {
        name: "cluster",
        value: "NAME",
        fallback: Fallback::Value("kringle"),
        heading: Heading::Cluster,
        help: "The cluster's name; nodes of another name are refused",
    },
    Setting {
        name: "pingfreq",
        value: "SECONDS",
        fallback: Fallback::Value("1"),
        heading: Heading::Cluster,
        help: "Time between two pings of a peer; fractions allowed, 0.001 to 3600",
    },
    Setting {
        name: "syncfreq",
        value: "SECONDS",
        fallback: Fallback::Value("10"),
        heading: Heading::Cluster,
        help: "Time between two comparisons with each peer, which repair what was lost; fractions allowed, 0.001 to \
               3600",
    },
    Setting {
        name: "timeout",
        value: "SECONDS",
        fallback: Fallback::Value("5"),
        heading: Heading::Cluster,
        help: "A request's whole deadline, which bounds every call to a peer as well; 0.001 to 3600",
    },
    Setting {
        name: "replicas",
        value: "COUNT",
        fallback: Fallback::Value("3"),
        heading: Heading::Cluster,
        help: "Nodes that keep each key, 1 to 16; never more than there are",
    },
    Setting {
        name: "mode",
        value: "MODE",
        fallback: Fallback::Value("sloppy"),
        heading: Heading::Cluster,
        help: "sloppy: a write waits for --w owners, stand-ins help out; async: for one owner only; quorum, sync, chain: owners agree, or it is refused",
    },
    Setting {
        name: "w",
        value: "COUNT",
        fallback: Fallback::Value("majority"),
        heading: Heading::Cluster,
        help: "Owners a write waits for in mode sloppy: majority, or 1 to --replicas",
    },
    Setting {
        name: "r",
        value: "COUNT",
        fallback: Fallback::Value("majority"),
        heading: Heading::Cluster,
        help: "Owners a read asks in mode sloppy: majority, or 1 to --replicas",
    },
    Setting {
        name: "data",
        value: "FOLDER",
        fallback: Fallback::Rule("./data/<port>"),
        heading: Heading::Storage,
        help: "The folder to keep data in, made if missing",
    },
    Setting {
        name: "memory",
        value: "",
        fallback: Fallback::Value("false"),
        heading: Heading::Storage,
        help: "Keep nothing on disk: what this node has is gone when it stops",
    },
    Setting {
        name: "durability",
        value: "WHEN",
        fallback: Fallback::Value("sync"),
        heading: Heading::Storage,
        help: "When an acknowledged write is on disk: sync (before), interval:<ms> (1 to 60000 ms after, at the \
               latest) or none (some time)",
    },
    Setting {
        name: "max-keys",
        value: "COUNT",
        fallback: Fallback::Value("off"),
        heading: Heading::Storage,
        help: "Keys with a value that the node keeps: past it new keys are refused with 507, while those that \
               are there may change and copies from other nodes are taken; 1 to 1000000000000, or off",
    },
    Setting {
        name: "hint-max-bytes",
        value: "SIZE",
        fallback: Fallback::Value("256MiB"),
        heading: Heading::Storage,
        help: "Hints kept for one unreachable member, at most: bytes, KiB, MiB or GiB, up to 1024GiB; 0 keeps none",
    },
    Setting {
        name: "transfer-rate",
        value: "RATE",
        fallback: Fallback::Value("auto"),
        heading: Heading::Storage,
        help: "Bytes a second of what other nodes bring: moved keys, repairs, hints; a record counts its values and 256 bytes; \
               1MiB to 1024GiB, or auto: some 2000 records a second beside clients, and without them all there is",
    },
    Setting {
        name: "scrub-every",
        value: "SECONDS",
        fallback: Fallback::Value("86400"),
        heading: Heading::Storage,
        help: "Time between two scrubs, which read everything back from disk and repair what rotted; fractions \
               allowed, 0.001 to 31536000, or off",
    },
    Setting {
        name: "value-max",
        value: "SIZE",
        fallback: Fallback::Value("8MiB"),
        heading: Heading::Storage,
        help: "Longest value: bytes, KiB or MiB, up to 64MiB",
    },
    Setting {
        name: "key-max",
        value: "SIZE",
        fallback: Fallback::Value("4KiB"),
        heading: Heading::Storage,
        help: "Longest key: bytes or KiB, up to 4KiB",
    },
    Setting {
        name: "log",
        value: "FILTER",
        fallback: Fallback::Value("info"),
        heading: Heading::Logging,
        help: "off, error, warn, info, debug or trace, also for single modules: warn,kringle=debug",
    },
    Setting {
        name: "log-format",
        value: "FORMAT",
        fallback: Fallback::Value("text"),
        heading: Heading::Logging,
        help: "text, or json: one object a line",
    },
];
