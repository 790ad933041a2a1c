//! The Redis protocol, RESP2 and RESP3: what clients of that store send becomes the same operations as over HTTP.
//!
//! | file | for |
//! | --- | --- |
//! | `connection` | one client's connection, from its first byte to its last |
//! | `input` | bytes become commands, within limits |
//! | `inline` | commands typed as a line of words |
//! | `pipeline` | commands that are under way together, answered in their order |
//! | `frame` | the only place that knows the encoding |
//! | `reply` | what a command is answered |
//! | `refuse` | errors as lines |
//! | `session` | what one connection has agreed on |
//! | `clients` | who is connected |
//! | `arguments` | keys, numbers and options |
//! | `commands` | the one table of commands |
//! | `access` | reads and writes, as all commands make them |
//! | `rewrite` | writes that depend on what was there |
//! | `strings`, `counters`, `expiry`, `keys`, `scan` | commands on keys |
//! | `glob` | patterns |
//! | `transactions` | that there are none |
//! | `handshake`, `manual`, `server`, `cluster` | commands about the connection, the commands, this node, the cluster |

mod access;
mod arguments;
mod clients;
mod cluster;
mod commands;
mod connection;
mod counters;
mod expiry;
mod frame;
mod glob;
mod handshake;
mod inline;
mod input;
mod keys;
mod manual;
mod pipeline;
mod refuse;
mod reply;
mod rewrite;
mod scan;
mod server;
mod session;
mod strings;
mod transactions;

pub use clients::Clients;
pub use connection::serve;
