//! The description of the network.

use syncbn_abi::{
    Arenas, BatchNorm, Collective, Cpu, ElementType, Initial, Model, Node, Parameter, Target, Tensor,
};

use super::{
    BETA, BIAS, BOUND, CLASSES, CONSTANT, FEATURES, GAMMA, INV_STD, MEAN, RUNNING_MEAN, RUNNING_VAR, TRAINED,
    UNUSED, WEIGHT,
};

/// The description in an element type and BatchNorm mode.
pub fn model(element_type: ElementType, mode: &str) -> Model {
    let tensor = |name: &str, shape: &[u64], offset: usize, trained, initial| Parameter {
        name: name.into(),
        shape: shape.to_vec(),
        offset: offset as u64,
        order: syncbn_abi::Order::Plain,
        trained,
        initial,
    };
    let fill = |value| Initial::Fill { value };
    let (features, classes) = (FEATURES as u64, CLASSES as u64);
    let io = |name: &str, size| Tensor {
        name: name.into(),
        element_type,
        shape: vec![size],
    };
    let collective = |name: &str, group, bytes| Collective {
        name: name.into(),
        group,
        bytes,
        gradients: name == "gradients",
    };
    let node = |name: &str, op: &str| Node {
        name: name.into(),
        op: op.into(),
        flops: 0,
        bytes: 8,
        schedule: String::new(),
    };
    Model {
        compiler: "0.1.0".into(),
        name: "fake".into(),
        flags: vec![("bn".into(), mode.into())],
        targets: vec!["cpu".into()],
        gpu: None,
        cpu: Cpu {
            flag: "native".into(),
            name: "x86-64".into(),
            features: vec!["cx16".into()],
        },
        glibc: None,
        element_type,
        batch_bound: BOUND,
        train: true,
        infer: true,
        threads: false,
        inputs: vec![io("x", features)],
        target: Some(Target::Classes {
            classes,
            shape: vec![],
        }),
        outputs: vec![io("logits", classes)],
        parameters: vec![
            tensor(
                "fc.weight",
                &[classes, features],
                WEIGHT,
                true,
                Initial::KaimingNormal { fan_in: 3, seed: 1 },
            ),
            tensor("fc.bias", &[classes], BIAS, true, Initial::Data { offset: 0 }),
            tensor("bn.weight", &[features], GAMMA, true, fill(1.0)),
            tensor("bn.bias", &[features], BETA, true, fill(0.0)),
            tensor("unused", &[2], UNUSED, true, fill(3.0)),
            tensor("constant", &[], CONSTANT, false, fill(4.0)),
        ],
        statistics: vec![
            tensor("bn.running_mean", &[features], RUNNING_MEAN, false, fill(0.0)),
            tensor("bn.running_var", &[features], RUNNING_VAR, false, fill(1.0)),
        ],
        batch_norms: vec![BatchNorm {
            name: "bn".into(),
            channels: features,
            positions: 1,
            counts: true,
            running_mean: "bn.running_mean".into(),
            running_var: "bn.running_var".into(),
            saved: Some((MEAN as u64, INV_STD as u64)),
        }],
        batch_norm_mode: mode.into(),
        collectives: {
            let group = mode
                .strip_prefix("group=")
                .map_or(0, |size| size.parse().unwrap());
            vec![
                collective("bn moments", group, 56),
                collective("bn gradients", group, 48),
                collective("gradients", 0, 184),
            ]
        },
        uncombined: syncbn_abi::Uncombined {
            collectives: 4,
            bytes: 288,
        },
        schedule_hash: 99,
        train_nodes: vec![node("bn", "batch_norm"), node("fc", "gemm")],
        infer_nodes: vec![],
        arenas: Arenas {
            weights: 448,
            trained: TRAINED as u64,
            statistics: 128,
            prepared: 128,
            train_step: 256 + BOUND * features * 8,
            infer_step: 64,
            scratch: 0,
            partials: 0,
        },
        warnings: vec![],
    }
}
