//! How what is told to watchers is written down: as JSON, and as server-sent events.

use super::ask::put_bytes;
use super::condition;
use crate::node::{Told, What};
use crate::protocol::{ChangeKind, News, ToldChange};
use crate::storage::FEED_VALUE_BYTES_MAX;
use crate::watching::{Tidings, Why};
use bytes::Bytes;
use serde_json::{Value, json};

/// What a client does where something may be missing.
const GAP_HINT: &str = "list the keys you need again, such as GET /kv?prefix=, and go on from this id";

/// What kind of thing is told, a word for programs.
pub(super) fn event_of(told: &Told) -> &'static str {
    match &told.what {
        What::Ready => "ready",
        What::Tidings(Tidings::Gap { .. }) => "gap",
        What::Tidings(Tidings::News { news: News::Event(_), .. }) => "event",
        What::Tidings(Tidings::News { news: News::Change(change), .. }) => match change.kind {
            ChangeKind::Put => "put",
            ChangeKind::Delete => "delete",
            ChangeKind::Count => "count",
        },
    }
}

/// What is told, as an object.
pub(super) fn describe(told: &Told, with_values: bool) -> Value {
    match &told.what {
        What::Ready => json!({}),
        What::Tidings(Tidings::Gap { member, why }) => {
            json!({ "node": member, "reason": reason(*why), "hint": GAP_HINT })
        }
        What::Tidings(Tidings::News { member, news: News::Event(event) }) => json!({
            "node": member, "at_ms": event.at_ms, "level": event.level, "kind": event.kind, "text": event.text,
        }),
        What::Tidings(Tidings::News { member, news: News::Change(change) }) => {
            describe_change(member, change, with_values)
        }
    }
}

fn describe_change(member: &str, change: &ToldChange, with_values: bool) -> Value {
    let mut json = json!({ "siblings": change.siblings, "node": member, "at_ms": change.id.stamp.ms() });
    put_bytes(&mut json, "key", "key_base64", change.key.as_bytes());
    if change.siblings > 0 {
        json["etag"] = json!(condition::header(change.tag).to_str().unwrap_or_default());
    }
    if let Some(expires_ms) = change.expires_ms {
        json["expires"] = json!(expires_ms);
    }
    if with_values && change.siblings > 0 {
        if change.has_value {
            put_bytes(&mut json, "value", "value_base64", &change.value);
        } else if change.value_bytes as usize > FEED_VALUE_BYTES_MAX {
            json["left_out"] = json!(format!("the value has more than {FEED_VALUE_BYTES_MAX} bytes: read the key"));
        } else {
            json["left_out"] = json!("nobody watched values then: read the key");
        }
    }
    json
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::Silent => "the node does not answer: what it makes is not told until it does, and some may be lost",
        Why::Back => "the node answers again: what it made meanwhile was not told",
        Why::Restarted => "the node was restarted: what it had made before and not told is not told",
        Why::Forgotten => "more was made on the node than it remembers",
        Why::Disordered => "more waited than is held: what the node and others made may have been told out of order",
        Why::Left => "a node is no member any more: what it had made and not told is not told",
    }
}

/// What is told, as a server-sent event. Worked out once for all who are told.
pub(super) fn line(told: &Told, with_values: bool) -> Bytes {
    let line = || event(Some(&told.id), event_of(told), &describe(told, with_values));
    told.lines[usize::from(with_values)].get_or_init(line).clone()
}

/// A server-sent event. No part has a line break in it: JSON escapes them. Without an id the client keeps the one it has, which
/// an empty one would take from it.
pub(super) fn event(id: Option<&str>, event: &str, data: &Value) -> Bytes {
    let id = id.map_or(String::new(), |id| format!("id: {id}\n"));
    format!("{id}event: {event}\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_without_an_id_has_no_line_for_it() {
        let end = |id| event(id, "end", &json!({ "reason": "r" }));
        assert_eq!(end(Some("i")), "id: i\nevent: end\ndata: {\"reason\":\"r\"}\n\n");
        assert_eq!(end(None), "event: end\ndata: {\"reason\":\"r\"}\n\n");
    }
}
