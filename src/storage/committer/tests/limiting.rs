//! How many keys a store takes, told change by change.

use super::*;
use crate::storage::Room;

fn limited(store: Arc<dyn Store>, max: u64) -> (Desk, Arc<Room>) {
    let mut desk = desk_over(store, 10_000);
    Partition::all().for_each(|partition| desk.forest.mark_built(partition));
    let room = Arc::new(Room::of(max, desk.forest.clone()));
    desk.committer.limit(room.clone());
    (desk, room)
}

fn put(name: &str) -> Change {
    write(name, Seen::Everything, "v")
}

fn delete(name: &str) -> Change {
    Change::Write { key: key(name), edit: Edit::write(Seen::Everything, None), until: Stamp::MAX }
}

const FULL: Result<(), Refused> = Err(Refused::NodeFull { max: 3 });

impl Desk {
    fn all(&mut self, changes: Vec<Change>) -> Vec<Result<(), Refused>> {
        self.committer.commit(1_000, changes).into_iter().map(|result| result.map(drop)).collect()
    }
}

#[test]
fn past_its_room_a_store_takes_no_new_key_and_every_change_of_one_that_is_there() {
    let (mut desk, room) = limited(Arc::new(MemoryStore::new()), 3);
    let outcomes = desk.all(["a", "b", "c", "d", "a"].map(put).into());
    assert_eq!(outcomes, [Ok(()), Ok(()), Ok(()), FULL, Ok(())]);
    assert!(room.is_full());
    let add = |name: &str| {
        let edit = Edit::Add { by: 1, request: None };
        Change::Write { key: key(name), edit, until: Stamp::MAX }
    };
    assert_eq!(desk.all(vec![add("n")]), [FULL]);
    // Deleting what is not there makes no key of it, and what is deleted makes room, in one batch or later.
    assert_eq!(desk.all(vec![delete("x"), delete("a"), put("d"), put("e")]), [Ok(()), Ok(()), Ok(()), FULL]);
    assert_eq!(desk.all(vec![put("e"), delete("b")]), [FULL, Ok(())]);
    assert_eq!(desk.all(vec![put("e")]), [Ok(())]);
    // What other owners made is taken, as is what this store only keeps for them.
    let copies = ["p", "q"].map(|name| Change::Merge { key: key(name), record: foreign(9, 1, "w") });
    assert_eq!(desk.all(copies.into()), [Ok(()), Ok(())]);
    let targets = vec!["n2".into()];
    let hint = Change::HintWrite { key: key("h"), edit: Edit::write(Seen::Everything, content("v")), targets };
    assert_eq!(desk.all(vec![hint]), [Ok(())]);
    assert_eq!(desk.all(vec![delete("c"), delete("d"), put("f"), put("p")]), [Ok(()), Ok(()), FULL, Ok(())]);
    assert_eq!(desk.forest.live_of_all(), 3);
    desk.check_forest();
}

#[test]
fn what_could_not_be_made_durable_takes_no_room() {
    let files = SimFiles::new(1);
    let opened = LogStore::open(Arc::new(files.clone()), Arc::new(MemoryBase::new()), LogStoreOptions::default());
    let (mut desk, room) = limited(Arc::new(opened.unwrap().0), 1);
    files.fail_writes(Some(ErrorKind::StorageFull));
    assert!(matches!(desk.all(vec![put("a")])[..], [Err(Refused::ReadOnly(_))]));
    assert!(!room.is_full());
    files.fail_writes(None);
    assert_eq!(desk.all(vec![put("b")]), [Ok(())]);
    assert!(room.is_full());
}
