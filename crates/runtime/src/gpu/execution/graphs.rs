//! Captured graphs of one kind of call, by what is the same in all calls that one may stand for.
//!
//! A graph holds grids, sizes and addresses, so a step has one for each vector of the ranks' counts and set of input
//! buffers; what else differs between steps (learning rate, moments' corrections) is read from memory. The first
//! call of a key is made directly, which also lets NCCL set up its connections; the second is captured and
//! replayed.

use std::cell::{Cell, RefCell};

use crate::{error::Result, gpu::device::Replay};

/// Most graphs of one kind.
const MOST: usize = 4;

/// The graphs of one kind of call.
pub struct Graphs<K> {
    /// Whether calls are captured at all.
    on: Cell<bool>,
    kept: RefCell<Vec<Kept<K>>>,
    /// Replays so far.
    replays: Cell<u64>,
}

/// A key and its graph, which is None after the first call.
type Kept<K> = (K, Option<Box<dyn Replay>>);

/// How a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By calling the function.
    Direct,
    /// By capturing it, and replaying that.
    Capture,
    /// By replaying what was captured.
    Replay,
}

impl<K: PartialEq> Graphs<K> {
    /// No graphs yet.
    pub fn new(on: bool) -> Self {
        Graphs {
            on: Cell::new(on),
            kept: RefCell::default(),
            replays: Cell::new(0),
        }
    }

    /// How the next call with `key` is made. Depends on the keys so far only, so that ranks that make the same calls
    /// decide alike.
    pub fn next(&self, key: K) -> Way {
        let mut kept = self.kept.borrow_mut();
        if !self.on.get() {
            return Way::Direct;
        }
        match kept.iter().find(|(known, _)| *known == key) {
            Some((_, Some(_))) => Way::Replay,
            Some((_, None)) => Way::Capture,
            None if kept.len() < MOST => {
                kept.push((key, None));
                Way::Direct
            }
            None => Way::Direct,
        }
    }

    /// Keeps what was captured for `key`.
    pub fn keep(&self, key: &K, graph: Box<dyn Replay>) {
        let mut kept = self.kept.borrow_mut();
        if let Some((_, place)) = kept.iter_mut().find(|(known, _)| known == key) {
            *place = Some(graph);
        }
    }

    /// Replays what was captured for `key`; false if nothing was.
    pub fn replay(&self, key: &K) -> Result<bool> {
        let kept = self.kept.borrow();
        let Some((_, Some(graph))) = kept.iter().find(|(known, _)| known == key) else {
            return Ok(false);
        };
        self.replays.update(|count| count + 1);
        graph.replay().map(|()| true)
    }

    /// Makes all further calls directly.
    pub fn give_up(&self) {
        self.on.set(false);
        self.kept.borrow_mut().clear();
    }

    /// Replays so far.
    pub fn replays(&self) -> u64 {
        self.replays.get()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    struct Count(Rc<Cell<u64>>);

    impl Replay for Count {
        fn replay(&self) -> Result<()> {
            self.0.update(|count| count + 1);
            Ok(())
        }
    }

    #[test]
    fn the_second_call_of_a_key_is_captured_and_later_ones_are_replayed() {
        let (graphs, count) = (Graphs::new(true), Rc::new(Cell::new(0)));
        assert_eq!(graphs.next("a"), Way::Direct);
        assert_eq!(graphs.next("b"), Way::Direct);
        assert_eq!(graphs.next("a"), Way::Capture);
        assert!(!graphs.replay(&"a").unwrap());
        graphs.keep(&"a", Box::new(Count(Rc::clone(&count))));
        assert_eq!(graphs.next("a"), Way::Replay);
        assert_eq!(graphs.next("b"), Way::Capture);
        assert!(graphs.replay(&"a").unwrap() && graphs.replay(&"a").unwrap());
        assert_eq!((count.get(), graphs.replays()), (2, 2));
    }

    #[test]
    fn further_keys_are_called_directly_and_so_is_everything_after_giving_up() {
        let graphs = Graphs::new(true);
        for _ in 0..3 {
            for key in 0..=MOST {
                let way = graphs.next(key);
                assert!(key < MOST || way == Way::Direct, "{key}");
                if way == Way::Capture {
                    graphs.keep(&key, Box::new(Count(Rc::default())));
                }
            }
        }
        assert_eq!(graphs.next(MOST - 1), Way::Replay);
        graphs.give_up();
        assert_eq!(graphs.next(MOST - 1), Way::Direct);
        assert_eq!(graphs.next(MOST - 1), Way::Direct);
        assert!(!graphs.replay(&(MOST - 1)).unwrap());
        let off = Graphs::new(false);
        assert_eq!(
            (off.next(1), off.next(1), off.next(1)),
            (Way::Direct, Way::Direct, Way::Direct)
        );
    }
}
