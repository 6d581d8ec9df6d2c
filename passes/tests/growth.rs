//! The work of the passes grows with the network and no faster. What is counted is allocations: whoever looks at a node
//! makes some, and unlike times they are the same on every machine.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::error::Error;

use syncbn_ir::{Builder, DType, Graph, GraphError};
use syncbn_passes::{Options, inference_graph, training_graph};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which counts.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// So many convolutions, each with BatchNorm and ReLU.
fn chain(layers: usize) -> Result<Graph, GraphError> {
    let mut net = Builder::new("chain", DType::F32);
    let mut x = net.input("x", &[3, 7, 7])?;
    for i in 0..layers {
        x = net.scope(&format!("layer{i}"), |net| {
            let y = net
                .conv2d("conv", x, 8)
                .kernel(3)
                .padding(1)
                .bias(false)
                .build()?;
            let y = net.batch_norm("bn", y)?;
            net.relu(y)
        })?;
    }
    let x = net.global_average_pool(x)?;
    let y = net.flatten(x)?;
    net.output("y", y);
    Ok(net.finish())
}

fn allocations(layers: usize) -> Result<usize, Box<dyn Error>> {
    let network = chain(layers)?;
    let options = Options::default();
    let before = ALLOCATIONS.with(Cell::get);
    let train = training_graph(&network, &options)?;
    let infer = inference_graph(&network, &options, None)?;
    drop((train, infer));
    Ok(ALLOCATIONS.with(Cell::get) - before)
}

#[test]
fn eight_times_the_layers_are_at_most_nine_times_the_work() {
    let (few, many) = (allocations(50).unwrap(), allocations(400).unwrap());
    assert!(
        many <= 9 * few,
        "{many} allocations for 400 layers, {few} for 50: {:.1} times as many",
        many as f64 / few as f64
    );
}
