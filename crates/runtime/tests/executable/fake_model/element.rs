//! The network's element types.

use syncbn_abi::ElementType;

/// The element type of the model.
pub trait Element: Copy {
    const TYPE: ElementType;
    fn get(self) -> f64;
    fn round(value: f64) -> Self;
}

impl Element for f32 {
    const TYPE: ElementType = ElementType::F32;
    fn get(self) -> f64 {
        f64::from(self)
    }
    fn round(value: f64) -> Self {
        value as f32
    }
}

impl Element for f64 {
    const TYPE: ElementType = ElementType::F64;
    fn get(self) -> f64 {
        self
    }
    fn round(value: f64) -> Self {
        value
    }
}
