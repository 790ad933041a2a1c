//! What of a node's own rows may be forgotten, as far as these rows tell: its part in asking the other owners.

use crate::record::{Context, Due, Key, Row};
use crate::storage::{Address, PageSize, Span, Store, StoreError};

/// Something of a row that may be forgotten if all owners agree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The key.
    pub key: Key,
    /// The context of what is to go. Empty where nothing is, and the note of it is out of date.
    pub context: Context,
    /// Whether the whole row is to go, a deleted or expired key's.
    pub is_spent: bool,
}

/// What one page of notes tells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Noted {
    /// What may be forgotten now.
    pub candidates: Vec<Candidate>,
    /// When the first of the others may, in milliseconds since 1970.
    pub next_ms: Option<u64>,
    /// Where the next page begins; `None` behind the last.
    pub next: Option<Address>,
}

/// The candidates among the rows noted in one page of `span`, which is one of notes ([`Kind::Due`](crate::storage::Kind)),
/// at `now_ms`, in milliseconds since 1970. Reads a row of the base for each, and is for a thread that may wait; `pace` is
/// called in between. Rows that cannot be read are left to the scrub.
pub fn forgettable(
    store: &dyn Store,
    span: &Span,
    size: PageSize,
    now_ms: u64,
    pace: &mut dyn FnMut(),
) -> Result<Noted, StoreError> {
    let page = store.scan(span, size)?;
    let mut noted = Noted { next: page.next, ..Noted::default() };
    for (address, note) in &page.rows {
        pace();
        let due = Due::decode(note);
        if due.ms > now_ms {
            noted.next_ms = Some(noted.next_ms.map_or(due.ms, |next_ms| next_ms.min(due.ms)));
            continue;
        }
        let Some(key) = address.key() else { continue };
        let row = match store.read(&Address::data(&key))?.map(|row| Row::decode(&row)) {
            None => Row::default(),
            Some(Ok(row)) => row,
            Some(Err(_)) => continue,
        };
        let record = row.record;
        let is_spent = !record.is_unknown() && record.is_spent(now_ms);
        noted.candidates.push(Candidate { context: record.forgettable(now_ms), is_spent, key });
    }
    Ok(noted)
}

/// How many keys of one page of `span` may be forgotten whole at `now_ms`, and where the next page begins. Reads the notes
/// alone, 1 µs each.
pub fn count_spent(
    store: &dyn Store,
    span: &Span,
    size: PageSize,
    now_ms: u64,
    pace: &mut dyn FnMut(),
) -> Result<(u64, Option<Address>), StoreError> {
    let page = store.scan(span, size)?;
    pace();
    let spent = page.rows.iter().filter(|(_, note)| Due::decode(note).whole_ms <= now_ms).count();
    Ok((spent as u64, page.next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Actor, Content, Dot, Record, Seen, Stamp};
    use crate::storage::{Kind, MemoryStore};

    #[test]
    fn what_is_due_is_a_candidate_and_of_the_rest_it_is_said_when_it_will_be() {
        let store = MemoryStore::new();
        let key = |name: &str| Key::new(name.as_bytes().to_vec()).unwrap();
        let dot = |ms| Dot { stamp: Stamp::from_ms(ms), actor: Actor(1) };
        let brief = |expires_ms| Content { expires_ms: Some(expires_ms), ..Content::plain("v") };
        let write = |content| Record::default().write(&Seen::Everything, dot(1), content).unwrap();
        let rows = [("deleted", write(None)), ("over", write(Some(brief(50)))), ("later", write(Some(brief(900))))];
        for (name, record) in &rows {
            let note = record.due().unwrap().encode().to_vec();
            let row = Row::of(record.clone()).encode();
            let changes = vec![(Address::data(&key(name)), Some(row)), (Address::due(&key(name)), Some(note.into()))];
            store.append(changes, Stamp(1)).unwrap();
        }
        // Written again since, and noted all the same.
        store.append(vec![(Address::due(&key("stale")), Some(vec![0; 16].into()))], Stamp(1)).unwrap();
        let noted = forgettable(&store, &Span::kind(Kind::Due), PageSize::rows(10), 100, &mut || ()).unwrap();
        let mut found: Vec<_> = noted.candidates.iter().map(|one| (one.key.clone(), one.is_spent)).collect();
        found.sort();
        assert_eq!(found, [(key("deleted"), true), (key("over"), true), (key("stale"), false)]);
        assert_eq!((noted.next_ms, noted.next), (Some(900), None));
        let stale = noted.candidates.iter().find(|one| !one.is_spent).unwrap();
        assert!(stale.context.is_empty());
        let spent = count_spent(&store, &Span::kind(Kind::Due), PageSize::rows(10), 100, &mut || ()).unwrap();
        assert_eq!(spent, (3, None), "the stale one as well, as only the row would tell");
    }
}
