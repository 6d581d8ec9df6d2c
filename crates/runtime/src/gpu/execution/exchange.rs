//! What the loop of a training or inference asks of a GPU rank, and what ranks exchange for it.

use std::sync::{Arc, atomic::Ordering};

use syncbn_abi::Model;

use super::{GpuExecution, memory::Buffer};
use crate::{
    error::{Error, Kind, Result},
    execution::{Batch, Consume, Execution, Region, inference_share},
    files::data::Dataset,
    gpu::control::Control,
    optimizer::Update,
    order,
};

impl Execution for GpuExecution {
    fn model(&self) -> &Model {
        &self.part.model
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn leads(&self) -> bool {
        self.seat.rank == 0
    }

    fn interrupted(&self) -> bool {
        match self.control() {
            Some(_) => self.interrupted.get(),
            None => self.signalled.load(Ordering::Relaxed),
        }
    }

    fn end_step(&self, step: u64) -> Result<()> {
        if let Some(control) = self.control() {
            self.interrupted.set(control.end_step(step)?);
        }
        Ok(())
    }

    fn train_step(&self, batch: &Batch, next: Option<&Batch>, trace: bool) -> Result<f64> {
        self.step(batch, next, trace)
    }

    fn update(&self, update: Update) -> Result<()> {
        self.apply(update)
    }

    fn first_not_finite(&self) -> Result<Option<i64>> {
        let own = self.trace.take();
        let Some(control) = self.control() else {
            return Ok(own);
        };
        // Any number of bytes but 8 stands for none.
        let bytes = |node: Option<i64>| node.map_or(Vec::new(), |node| node.to_le_bytes().to_vec());
        let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_le_bytes);
        let all = control.gather(bytes(own))?;
        let first = all.iter().filter_map(|bytes| number(bytes)).min();
        Ok(number(&control.broadcast(bytes(first))?))
    }

    fn prepare_inference(&self) -> Result<()> {
        let (prepare, _) = self.part.inference()?;
        let mut statistics = self.download(self.memory.statistics)?;
        if let Some(control) = self.control() {
            statistics = control.broadcast(statistics)?;
        }
        if statistics.len() as u64 != self.memory.shared_statistics.bytes {
            return Err(Error::internal("rank 0's running statistics have another size"));
        }
        self.device
            .upload(self.memory.shared_statistics.start, &statistics)?;
        self.infer_call(prepare, 0, false)
    }

    fn infer(&self, data: &Arc<Dataset>, batch: u64, consume: Option<Consume>) -> Result<Vec<Vec<u8>>> {
        let (_, function) = self.part.inference()?;
        let own: Vec<u64> = inference_share(data.samples(), self.seat.rank, self.ranks).collect();
        let mut pieces = Vec::new();
        let mut complete = true;
        let mut batches = own.chunks(batch as usize).peekable();
        if let Some(first) = batches.peek() {
            self.inputs.copy(&*self.device, data, first)?;
        }
        while let Some(samples) = batches.next() {
            if self.asked_to_end() {
                complete = false;
                break;
            }
            let entered = self.inputs.enter(&*self.device, self.stream);
            entered.map_err(|error| self.explain(error))?;
            self.infer_call(function, samples.len() as u64, true)?;
            if let Some(next) = batches.peek() {
                self.inputs.copy(&*self.device, data, next)?;
            }
            self.settle()?;
            let Some(consume) = &consume else { continue };
            let outputs = self.outputs(samples.len())?;
            let outputs: Vec<&[u8]> = outputs.iter().map(Vec::as_slice).collect();
            pieces.push(consume(&outputs, samples));
        }
        // Ranks may have had different numbers of batches.
        self.inputs.restart();
        let interruption = || Error::new(Kind::Interrupted, "interrupted");
        let Some(control) = self.control() else {
            return if complete { Ok(pieces) } else { Err(interruption()) };
        };
        if consume.is_none() {
            return Ok(pieces);
        }
        let all = control.gather(pack(complete, &pieces))?;
        let mut found = Vec::new();
        let mut all_complete = true;
        for packed in &all {
            all_complete &= unpack(packed, &mut found)?;
        }
        let verdict = control.broadcast(vec![u8::from(all_complete)])?;
        if verdict != [1] {
            self.interrupted.set(true);
            return Err(interruption());
        }
        Ok(found)
    }

    fn read(&self, region: Region, see: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        see(&self.fetch(region)?)
    }

    fn gather(&self, region: &dyn Fn(usize) -> Region) -> Result<Vec<Vec<u8>>> {
        let own = self.fetch(region(self.seat.rank))?;
        match self.control() {
            Some(control) => control.gather(own),
            None => Ok(vec![own]),
        }
    }

    fn check_weights(&self) -> Result<()> {
        let Some(control) = self.control() else {
            return Ok(());
        };
        let weights = self.download(self.memory.weights)?;
        let hashes = control.gather(hash(&weights).to_le_bytes().to_vec())?;
        let other = hashes.iter().position(|other| *other != hashes[0]);
        self.agree(match other {
            Some(rank) => Err(Error::internal(format!(
                "the weights of rank {rank} differ from those of rank 0"
            ))),
            None => Ok(()),
        })
    }

    fn agree(&self, outcome: Result<()>) -> Result<()> {
        let Some(control) = self.control() else {
            return outcome;
        };
        let malformed = |cause| Error::internal(format!("malformed verdict of rank 0: {cause}"));
        let verdict = serde_json::to_vec(&outcome.err()).map_err(malformed)?;
        let verdict = control.broadcast(verdict)?;
        match serde_json::from_slice::<Option<Error>>(&verdict).map_err(malformed)? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn finish(&self) -> Result<()> {
        self.settle()?;
        self.inputs.settle(&*self.device)?;
        self.control().map_or(Ok(()), Control::barrier)?;
        self.finished.set(true);
        Ok(())
    }

    fn time_nodes(&self, nodes: usize) {
        self.trace.time(nodes);
    }

    fn node_times(&self) -> Vec<f64> {
        self.trace.take_times()
    }

    fn collectives(&self) -> u64 {
        self.device.collectives()
    }

    fn replays(&self) -> Option<u64> {
        Some(self.step_graphs.replays() + self.inference_graphs.replays())
    }
}

impl GpuExecution {
    /// A region, with parameters in row-major order.
    fn fetch(&self, region: Region) -> Result<Vec<u8>> {
        let mut bytes = self.download(self.memory.region(region)?)?;
        if matches!(region, Region::Weights | Region::Gradients) {
            order::to_rows(&self.part.model, &mut bytes);
        }
        Ok(bytes)
    }

    /// The outputs of `n` samples.
    fn outputs(&self, n: usize) -> Result<Vec<Vec<u8>>> {
        let tensors = self.part.model.outputs.iter().zip(&self.memory.outputs);
        tensors
            .map(|(tensor, buffer)| {
                let bytes = n as u64 * crate::sizes::sample_bytes(tensor);
                self.download(Buffer { bytes, ..*buffer })
            })
            .collect()
    }
}

/// One message of what a rank inferred: whether that is all, then each piece after its length.
fn pack(complete: bool, pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut packed = vec![u8::from(complete)];
    for piece in pieces {
        packed.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        packed.extend_from_slice(piece);
    }
    packed
}

/// Appends the pieces of a message to `pieces`; returns whether it is all that its rank was to infer.
fn unpack(packed: &[u8], pieces: &mut Vec<Vec<u8>>) -> Result<bool> {
    let malformed = || Error::internal("malformed outputs of another rank");
    let (complete, mut rest) = packed.split_first().ok_or_else(malformed)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        let length = u64::from_le_bytes(*length) as usize;
        let (piece, after) = after.split_at_checked(length).ok_or_else(malformed)?;
        pieces.push(piece.to_vec());
        rest = after;
    }
    Ok(*complete == 1)
}

/// A hash of all bits, to compare copies that should be the same.
fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().map(|byte| u64::from(*byte));
    words.chain(rest).fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        (hash ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_in_order() {
        let pieces = [vec![1, 2, 3], vec![], vec![4]];
        let mut found = Vec::new();
        assert!(unpack(&pack(true, &pieces), &mut found).unwrap());
        assert!(!unpack(&pack(false, &[vec![5]]), &mut found).unwrap());
        assert_eq!(found, [vec![1, 2, 3], vec![], vec![4], vec![5]]);
        let mut cut = pack(true, &pieces);
        cut.pop();
        assert!(unpack(&cut, &mut found).is_err());
        assert!(unpack(&[], &mut found).is_err());
    }

    #[test]
    fn every_bit_changes_the_hash() {
        let bytes: Vec<u8> = (0..21).collect();
        let expected = hash(&bytes);
        for bit in 0..21 * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(hash(&other), expected, "{bit}");
        }
        let mut swapped = bytes.clone();
        swapped.swap(0, 8);
        assert_ne!(hash(&swapped), expected);
    }
}
