//! shim
#![allow(missing_docs)]
use super::*;
pub type LogStore = MemoryStore;
impl MemoryStore {
    pub fn wants_checkpoint(&self) -> bool {
        false
    }
    pub fn checkpoint(&self, _p: &mut dyn FnMut()) -> Result<(), StoreError> {
        Ok(())
    }
}
pub struct Rebuild;
impl Rebuild {
    pub fn step(&mut self, _f: &crate::merkle::Forest) -> Result<bool, StoreError> {
        Ok(false)
    }
}
#[derive(Debug, thiserror::Error)]
#[error("shim")]
pub struct OpenError;
#[derive(Default)]
pub struct Options {
    pub durability: Durability,
    pub x: u8,
}
pub struct Opened {
    pub store: std::sync::Arc<LogStore>,
    pub rebuild: Rebuild,
    pub node: crate::placement::NodeId,
}
pub fn open(_: &std::path::Path, _: &str, _: crate::placement::NodeId, _: Options) -> Result<Opened, OpenError> {
    Err(OpenError)
}
