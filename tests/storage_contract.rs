//! One suite of laws, on every store there is.

use kringle::storage::contract::{Subject, check_all};
use kringle::storage::sim_files::SimFiles;
use kringle::storage::{LogStore, LogStoreOptions, MemoryBase, MemoryStore, Store};
use std::sync::Arc;

struct InMemory(MemoryStore);

impl Subject for InMemory {
    fn store(&self) -> &dyn Store {
        &self.0
    }

    fn settle(&mut self) {}

    fn restart(&mut self) -> bool {
        false
    }
}

#[test]
fn the_memory_store_keeps_the_law() {
    check_all(&mut || Box::new(InMemory(MemoryStore::new())));
}

/// Small bounds, so that segments and generations change often.
fn small() -> LogStoreOptions {
    LogStoreOptions { segment_bytes: 16 << 10, cache_bytes_max: 64 << 10, ..LogStoreOptions::default() }
}

struct Simulated {
    files: SimFiles,
    base: MemoryBase,
    store: LogStore,
}

impl Simulated {
    fn new() -> Simulated {
        let (files, base) = (SimFiles::new(1), MemoryBase::new());
        let (store, _) = LogStore::open(Arc::new(files.clone()), Arc::new(base.clone()), small()).unwrap();
        Simulated { files, base, store }
    }
}

impl Subject for Simulated {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn settle(&mut self) {
        self.store.checkpoint(&mut || ()).unwrap();
    }

    fn restart(&mut self) -> bool {
        self.files.crash();
        let opened = LogStore::open(Arc::new(self.files.clone()), Arc::new(self.base.clone()), small());
        self.store = opened.unwrap().0;
        true
    }
}

#[test]
fn the_log_store_keeps_the_law_on_simulated_files_that_crash() {
    check_all(&mut || Box::new(Simulated::new()));
}

#[cfg(feature = "disk")]
mod on_disk {
    use super::*;
    use kringle::storage::{OpenOptions, Opened, open};
    use tempfile::TempDir;

    struct OnDisk {
        folder: TempDir,
        opened: Option<Opened>,
    }

    impl OnDisk {
        fn open(&mut self) {
            let options = OpenOptions { store: small(), ..OpenOptions::new("test", 1, 2) };
            self.opened = Some(open(self.folder.path(), options).unwrap());
        }
    }

    impl Subject for OnDisk {
        fn store(&self) -> &dyn Store {
            &*self.opened.as_ref().unwrap().store
        }

        fn settle(&mut self) {
            self.opened.as_ref().unwrap().store.checkpoint(&mut || ()).unwrap();
        }

        fn restart(&mut self) -> bool {
            self.opened = None;
            self.open();
            true
        }
    }

    #[test]
    fn the_log_store_keeps_the_law_on_disk() {
        check_all(&mut || {
            let mut subject = OnDisk { folder: tempfile::tempdir().unwrap(), opened: None };
            subject.open();
            Box::new(subject)
        });
    }
}
