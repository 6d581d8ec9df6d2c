//! A network in another floating-point type.

use std::sync::Arc;

use super::{Graph, GraphError};
use crate::ops::{Op, ParameterData};
use crate::tensor::Literal;
use crate::types::DType;

impl Graph {
    /// Gives inputs, parameters, statistics and constants of element type `from` the type `to`, their values rounded,
    /// and infers all other types anew. Both types are floating-point.
    pub fn convert_floats(&mut self, from: DType, to: DType) -> Result<(), GraphError> {
        let literal = |old: &mut Arc<Literal>| {
            if old.dtype() == from {
                *old = Arc::new(Literal::from_f64(to, &old.dims, &old.to_f64()));
            }
        };
        let dtype = |old: &mut DType| {
            if *old == from {
                *old = to;
            }
        };
        for id in self.topological()? {
            match &mut self.node_mut(id).op {
                Op::Input(input) => dtype(&mut input.ty.dtype),
                Op::Constant(constant) => literal(&mut constant.value),
                Op::Cast(cast) => dtype(&mut cast.dtype),
                Op::Parameter(crate::ops::Parameter { ty, data, .. })
                | Op::Statistic(crate::ops::Statistic { ty, data, .. }) => {
                    dtype(&mut ty.dtype);
                    if let ParameterData::Values(values) = data {
                        literal(values);
                    }
                }
                _ => {}
            }
            let types: Vec<_> = self.operands(id).iter().map(|&value| self.ty(value)).collect();
            let inferred = self.op(id).infer(&types).map_err(|message| GraphError::Type {
                name: self.node(id).name.clone(),
                op: self.op(id).name().to_string(),
                message,
            })?;
            for (output, ty) in self.node_mut(id).outputs.iter_mut().zip(inferred) {
                output.ty = ty;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{parse, print};

    const NETWORK: &str = r#"graph "net" {
  %x = input "x" data : f64[batch, 2]
  %w = parameter "w" trained [0.1, -2.0] : f64[2]
  %c = constant [3.0, 4.0] : f64[2]
  %y = binary(%x, %w) {function = mul} : f64[batch, 2]
  %z = binary(%y, %c) {function = add} : f64[batch, 2]
  return output "z" %z
}
"#;

    #[test]
    fn values_are_rounded_and_types_follow() {
        let mut graph = parse(NETWORK).unwrap();
        graph.convert_floats(DType::F64, DType::F32).unwrap();
        let text = print(&graph);
        assert!(!text.contains("f64"), "{text}");
        let rounded = graph.nodes().find_map(|id| match graph.op(id) {
            Op::Parameter(parameter) => match &parameter.data {
                ParameterData::Values(values) => Some(values.to_f64()),
                _ => None,
            },
            _ => None,
        });
        assert_eq!(rounded, Some(vec![f64::from(0.1_f32), -2.0]));
    }
}
