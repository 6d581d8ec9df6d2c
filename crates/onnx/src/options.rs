//! Options of an import.

use globset::{Glob, GlobSet, GlobSetBuilder};
use syncbn_ir::DType;

use crate::error::ImportError;

/// What the command line says about the import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Element type of the graph; None: the file's.
    pub dtype: Option<DType>,
    /// Shapes of inputs after the batch, by name.
    pub input_shapes: Vec<(String, Vec<usize>)>,
    /// Whether graph inputs in trainable slots become parameters.
    pub init: bool,
    /// Globs of parameter names that are not trained.
    pub freeze: Vec<String>,
    /// Globs of parameter names that are trained; wins over `freeze`.
    pub train: Vec<String>,
}

/// Compiled globs of one flag.
pub(crate) struct Globs {
    flag: &'static str,
    patterns: Vec<String>,
    set: GlobSet,
    matched: Vec<bool>,
}

impl Globs {
    /// Compiles the patterns; errors name the flag.
    pub(crate) fn new(flag: &'static str, patterns: &[String]) -> Result<Globs, ImportError> {
        let error = |e: globset::Error| ImportError::user(format!("{flag}: {e}"));
        let mut builder = GlobSetBuilder::new();
        for pattern in patterns {
            builder.add(Glob::new(pattern).map_err(error)?);
        }
        Ok(Globs {
            flag,
            patterns: patterns.to_vec(),
            set: builder.build().map_err(error)?,
            matched: vec![false; patterns.len()],
        })
    }

    /// Whether a pattern matches the name; remembers which patterns did.
    pub(crate) fn matches(&mut self, name: &str) -> bool {
        let hits = self.set.matches(name);
        for &i in &hits {
            self.matched[i] = true;
        }
        !hits.is_empty()
    }

    /// Patterns that matched no name, as `--freeze x.*`.
    pub(crate) fn unmatched(&self) -> Vec<String> {
        let all = self.patterns.iter().zip(&self.matched);
        all.filter(|(_, hit)| !**hit)
            .map(|(pattern, _)| format!("{} {pattern}", self.flag))
            .collect()
    }
}
