//! Room for the answers to forwards that the keeper holds until they are recorded here. Who finds none is refused before anything is
//! opened or sent; so the keeper does not come to let go of answers for want of room.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So much of answers may be on its way, or not acknowledged yet. The keeper has room for as much of an edge before this one, too.
const ROOM_KIB: usize = 64 << 10;

/// What is left of it.
#[derive(Debug)]
pub(in crate::edge) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_KIB)))
    }
}

impl Room {
    /// For an answer of so many bytes at most, if there is as much.
    pub(in crate::edge) fn take(&self, answer_bytes_max: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_many_owned(answer_bytes_max.div_ceil(1024)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_of_the_longest_answers_and_again_when_one_is_acknowledged() {
        let room = Room::default();
        let mut taken: Vec<_> = (0..256).map(|_| room.take(256 << 10).unwrap()).collect();
        assert!(room.take(1).is_none());
        taken.pop();
        assert!(room.take((256 << 10) + 1).is_none());
        assert!(room.take(256 << 10).is_some());
    }
}
