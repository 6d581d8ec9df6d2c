//! `syncbn-opt`: a graph in text form in, passes, a graph in text form out. For tests and for looking at what
//! a pass does; the binary only passes its arguments on.

mod arguments;

use std::fmt;
use std::io::Read;

use syncbn_ir::Warning;

use crate::error::{Fault, PassError};
use crate::manager::{PassRun, run_passes};
use crate::pass::PassContext;

pub use arguments::{Arguments, HELP};

/// What a run of `syncbn-opt` writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// To standard output.
    pub output: String,
    /// Graphs that were asked for on the way, to standard error.
    pub shown: String,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// How long each pass took, for `--verbose`.
    pub times: Vec<String>,
}

/// Why a run of `syncbn-opt` wrote nothing.
#[derive(Debug)]
pub struct Failure {
    /// Graphs that were asked for, up to where it failed.
    pub shown: String,
    /// What is wrong.
    pub error: PassError,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure {
            shown: String::new(),
            error: fault.into(),
        }
    }
}

/// Runs passes on a graph in text form.
pub fn optimize(text: &str, arguments: &Arguments) -> Result<Written, Failure> {
    let mut graph = syncbn_ir::parse(text).map_err(|e| {
        let place = format!("line {}, column {}", e.line, e.column);
        Fault::user(e.message)
            .at(place)
            .help("docs/ir.md has the grammar")
    })?;
    let mut cx = PassContext::new(arguments.options.clone());
    let mut shown = String::new();
    let mut show = |pass: &str, text: &str| shown += &format!("// after {pass}\n{text}");
    let runs = match run_passes(&mut graph, &arguments.selection, &mut cx, &mut show) {
        Ok(runs) => runs,
        Err(error) => return Err(Failure { shown, error }),
    };
    Ok(Written {
        output: syncbn_ir::print(&graph),
        shown,
        warnings: cx.warnings,
        times: runs.iter().map(PassRun::to_string).collect(),
    })
}

/// The whole of `syncbn-opt`: arguments, to what it writes.
pub fn opt_main(arguments: &Arguments) -> Result<Written, Failure> {
    if let Some(help) = &arguments.help {
        return Ok(Written {
            output: help.clone(),
            ..Written::default()
        });
    }
    let text = match &arguments.file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| Fault::user(format!("cannot read {path}: {e}")).help("check the path"))?,
        None => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| Fault::user(format!("cannot read standard input: {e}")).help("name a file"))?;
            text
        }
    };
    optimize(&text, arguments)
}

#[cfg(test)]
mod tests {
    use syncbn_ir::ops::RunningVar;

    use super::*;
    use crate::options::{BatchNormMode, Loss, Mode};
    use crate::pipelines;

    #[test]
    fn arguments_are_read() {
        let line = "g.ir --passes=clean,plan-memory --bn=group=4 --loss=mse --mode=infer --batch=7 --running-var=population --skip=canonicalize";
        let words: Vec<&str> = line.split(' ').collect();
        let parsed = Arguments::parse(&words).unwrap();
        assert_eq!(parsed.file.as_deref(), Some("g.ir"));
        assert_eq!(parsed.selection.passes, ["clean", "plan-memory"]);
        assert_eq!(parsed.selection.skip, ["canonicalize"]);
        assert_eq!(parsed.options.batch_norm, BatchNormMode::Group(4));
        assert_eq!(parsed.options.loss, Loss::MeanSquaredError);
        assert_eq!(parsed.options.mode, Mode::Infer);
        assert_eq!(parsed.options.batch_bound, 7);
        assert_eq!(parsed.options.running_var, RunningVar::Population);
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (argument, expected) in [
            (
                "--bn=none",
                "--bn: \"none\" is none of sync, local, frozen, group=K",
            ),
            ("--bn=group=0", "group=0"),
            ("--batch=0", "--batch: \"0\" is not a positive number"),
            ("--passes", "--passes needs a value"),
            ("--pass=clean", "unknown option --pass=clean"),
        ] {
            let error = Arguments::parse(&[argument]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Arguments::parse(&["a.ir", "b.ir"]).is_err());
    }

    #[test]
    fn errors_of_passes_come_back() {
        let text = "graph \"g\" {\n  %x = input \"x\" data : f32[batch, 2]\n  return output \"y\" %x\n}\n";
        let arguments = Arguments::parse(&["--passes=differentiate", "--print-ir-after-all"]).unwrap();
        let error = optimize(text, &arguments).unwrap_err().to_string();
        assert!(error.contains("no loss to differentiate"), "{error}");
        let arguments = Arguments::parse(&["--passes=add-loss", "--print-ir-after-all"]).unwrap();
        let written = optimize(text, &arguments).unwrap();
        assert!(written.shown.contains("// after add-loss"), "{}", written.shown);
        assert!(
            written.output.contains("softmax_cross_entropy"),
            "{}",
            written.output
        );
    }

    #[test]
    fn help_lists_every_pass() {
        let written = opt_main(&Arguments::parse(&["--pass-help"]).unwrap()).unwrap();
        for pass in pipelines::PASSES {
            assert!(written.output.contains(pass.name()));
            assert!(written.output.contains(pass.summary()));
        }
    }
}
