//! What is seen of the nodes of a traced step: the lowest whose output holds a value that is not finite, or how long each
//! takes.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use syncbn_abi::{ElementType, StoredType};

/// What tracing finds.
#[derive(Debug)]
pub struct Trace {
    element_type: ElementType,
    not_finite: Mutex<Option<i64>>,
    clock: Mutex<Option<Clock>>,
}

/// The times of nodes.
#[derive(Debug)]
struct Clock {
    /// When the last node ended.
    last: Instant,
    /// Seconds of each node.
    seconds: Vec<f64>,
}

impl Trace {
    /// For a model whose element type is `element_type`.
    pub fn new(element_type: ElementType) -> Self {
        Trace {
            element_type,
            not_finite: Mutex::new(None),
            clock: Mutex::new(None),
        }
    }

    fn clock(&self) -> MutexGuard<'_, Option<Clock>> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes times from now on, of `nodes` nodes, and looks at no values.
    pub fn time(&self, nodes: usize) {
        *self.clock() = Some(Clock {
            last: Instant::now(),
            seconds: vec![0.0; nodes],
        });
    }

    /// Whether times are noted.
    pub fn is_timing(&self) -> bool {
        self.clock().is_some()
    }

    /// A step begins.
    pub fn start_clock(&self) {
        if let Some(clock) = &mut *self.clock() {
            clock.last = Instant::now();
        }
    }

    /// If times are noted: a node ends, or another output of it.
    pub fn lap(&self, node: i64) -> bool {
        let mut clock = self.clock();
        let Some(clock) = &mut *clock else {
            return false;
        };
        let now = Instant::now();
        let node = usize::try_from(node).ok();
        if let Some(seconds) = node.and_then(|node| clock.seconds.get_mut(node)) {
            *seconds += (now - clock.last).as_secs_f64();
        }
        clock.last = now;
        true
    }

    /// Seconds of each node since the last call of this, or since times are noted; none if they are not.
    pub fn take_times(&self) -> Vec<f64> {
        match &mut *self.clock() {
            Some(clock) => {
                let zeros = vec![0.0; clock.seconds.len()];
                std::mem::replace(&mut clock.seconds, zeros)
            }
            None => Vec::new(),
        }
    }

    /// The element type that `output` names, see [`syncbn_abi::trace_output`].
    pub fn element_type(&self, output: i64) -> StoredType {
        match output >> 32 {
            1 => StoredType::F32,
            2 => StoredType::F64,
            3 => StoredType::I64,
            4 => StoredType::BF16,
            _ => self.element_type.into(),
        }
    }

    /// Notes `node` if a value of its output, which has the type that `output` names, is not finite.
    pub fn inspect(&self, node: i64, output: i64, bytes: &[u8]) {
        let finite = match self.element_type(output) {
            StoredType::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .all(|&value| f32::from_ne_bytes(value).is_finite()),
            StoredType::F64 => bytes
                .as_chunks()
                .0
                .iter()
                .all(|&value| f64::from_ne_bytes(value).is_finite()),
            StoredType::BF16 => bytes
                .as_chunks()
                .0
                .iter()
                .all(|&value| f32::from_bits(u32::from(u16::from_ne_bytes(value)) << 16).is_finite()),
            StoredType::I64 => true,
        };
        if !finite {
            let mut lowest = self.not_finite.lock().unwrap_or_else(PoisonError::into_inner);
            *lowest = Some(lowest.map_or(node, |known| known.min(node)));
        }
    }

    /// The lowest node whose output was not finite since the last call of this.
    pub fn take(&self) -> Option<i64> {
        self.not_finite
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_node_that_is_not_finite_is_kept_until_taken() {
        let trace = Trace::new(ElementType::F32);
        let nan = [1.0f32.to_ne_bytes(), f32::NAN.to_ne_bytes()].concat();
        trace.inspect(3, 0, &1.0f32.to_ne_bytes());
        assert_eq!(trace.take(), None);
        trace.inspect(7, 0, &nan);
        trace.inspect(5, 0, &nan);
        trace.inspect(6, 0, &nan);
        assert_eq!(trace.take(), Some(5));
        assert_eq!(trace.take(), None);
    }

    #[test]
    fn times_of_nodes_add_up_until_taken() {
        let trace = Trace::new(ElementType::F32);
        assert!(!trace.lap(0));
        assert_eq!(trace.take_times(), [0.0; 0]);
        trace.time(2);
        trace.start_clock();
        let start = Instant::now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(trace.lap(1) && trace.lap(1));
        // A node that the description does not have is nobody's time.
        assert!(trace.lap(7));
        let most = start.elapsed().as_secs_f64();
        let times = trace.take_times();
        assert_eq!(times[0], 0.0);
        assert!(times[1] >= 2e-3 && times[1] <= most, "{times:?}");
        assert_eq!(trace.take_times(), [0.0; 2]);
    }

    #[test]
    fn the_output_names_the_type_of_its_values() {
        let trace = Trace::new(ElementType::F32);
        let ones = u64::MAX.to_ne_bytes();
        trace.inspect(1, syncbn_abi::trace_output(0, StoredType::I64), &ones);
        assert_eq!(trace.take(), None);
        let infinity = f64::INFINITY.to_ne_bytes();
        trace.inspect(2, syncbn_abi::trace_output(0, StoredType::F64), &infinity);
        assert_eq!(trace.take(), Some(2));
        let bf16 = syncbn_abi::trace_output(0, StoredType::BF16);
        // Read as f32, the pair would be finite.
        trace.inspect(
            3,
            bf16,
            &[0x7f80u16.to_ne_bytes(), 0x3f80u16.to_ne_bytes()].concat(),
        );
        assert_eq!(trace.take(), Some(3));
        trace.inspect(4, bf16, &0x7f7fu16.to_ne_bytes());
        assert_eq!(trace.take(), None);
    }
}
