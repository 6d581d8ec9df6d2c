//! What the passes know of the devices that they prepare graphs for.

use syncbn_codegen::Cpu;
use syncbn_mlir::Products;
use syncbn_passes::{Gpu, Machine, Order, Storage, Target};

/// Whether code for the CPU follows schedules unless asked otherwise.
pub const FAST: bool = true;

/// A CPU, whose convolutions and matrix products have schedules if `fast`.
pub fn cpu_target(cpu: &Cpu, fast: bool) -> Target {
    match fast {
        false => Target::default(),
        true => Target {
            order: Order::ChannelsLast,
            machine: Some(Machine::with_vectors(cpu.vector_bytes())),
            ..Target::default()
        },
    }
}

/// A GPU, by how it multiplies matrices.
pub fn gpu_target(products: Products) -> Target {
    Target {
        order: Order::ChannelsLast,
        channel_multiple: products.channels_at_once(),
        storage: match products {
            Products::Bf16 => Storage::Bf16,
            Products::Exact | Products::Tf32 | Products::ThreeTf32 => Storage::Full,
        },
        machine: None,
        gpu: Some(Gpu::a100(products)),
    }
}
