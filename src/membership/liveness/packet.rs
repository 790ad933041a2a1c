//! What travels between two livenesses: runs of members, and packets in parts.

use super::PACKET_BYTES_MAX;
use bytes::{Buf, BufMut};
use foca::{Codec, Header, Identity, Member, PostcardCodec};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One run of a member, as others know it: a restart, and a return of one that was thought down, begins another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// Shared, as foca asks for it once for each member to find one.
    pub(super) name: Arc<str>,
    /// Rises with each run; 0 for a member that was not heard yet.
    pub(super) number: u64,
}

impl Identity for Run {
    type Addr = Arc<str>;

    fn renew(&self) -> Option<Run> {
        Some(Run { name: self.name.clone(), number: self.number.checked_add(1)? })
    }

    fn addr(&self) -> Arc<str> {
        self.name.clone()
    }

    fn win_addr_conflict(&self, other: &Run) -> bool {
        self.number > other.number
    }
}

/// A packet in parts.
pub(super) struct Opened {
    pub(super) header: Header<Run>,
    /// What the sender has heard of members, where it says anything.
    pub(super) news: Option<Vec<Member<Run>>>,
    /// Whether it is no longer what it was read from.
    pub(super) is_changed: bool,
}

impl Opened {
    pub(super) fn read(mut bytes: &[u8]) -> Option<Opened> {
        if bytes.len() > PACKET_BYTES_MAX {
            return None;
        }
        let header = PostcardCodec.decode_header(&mut bytes).ok()?;
        let news = if bytes.is_empty() {
            None
        } else {
            let count = bytes.try_get_u16().ok()?;
            Some((0..count).map(|_| PostcardCodec.decode_member(&mut bytes).ok()).collect::<Option<Vec<_>>>()?)
        };
        bytes.is_empty().then_some(Opened { header, news, is_changed: false })
    }

    pub(super) fn written(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        PostcardCodec.encode_header(&self.header, &mut bytes).ok()?;
        if let Some(news) = &self.news {
            bytes.put_u16(u16::try_from(news.len()).ok()?);
            for member in news {
                PostcardCodec.encode_member(member, &mut bytes).ok()?;
            }
        }
        Some(bytes)
    }
}
