//! `syncbn-opt`: a graph in text form in, passes, a graph in text form out. For tests and for looking at what
//! a pass does; the binary only passes its arguments on.

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use syncbn_ir::Warning;
use syncbn_ir::attributes::Word;
use syncbn_ir::ops::RunningVar;

use crate::error::{Fault, PassError};
use crate::manager::{PassRun, PrintAfter, Selection, run_passes};
use crate::options::Options;
use crate::pass::PassContext;
use crate::pipelines;

/// What `syncbn-opt --help` says.
pub const HELP: &str = "\
syncbn-opt [FILE | -] --passes=a,b [options]

Reads a graph in text form, runs passes, writes the graph to standard output.

  --passes=LIST            passes and pipelines, in order; --pass-help lists them
  --skip=LIST              passes that are left out
  --stop-after=PASS        the last pass that runs
  --print-ir-after=LIST    shows the graph after these passes, on standard error
  --print-ir-after-all     shows the graph after every pass
  --mode=MODE              train (default), infer
  --bn=MODE                sync (default), local, frozen, group=K
  --running-var=RULE       pytorch (default), population
  --loss=LOSS              cross-entropy (default), mse
  --loss-output=NAME       the output that the loss is taken of
  --input-gradients        takes gradients of data inputs too
  --batch=N                largest batch of one rank (default 32)
  --channels-last          puts channels innermost, as the GPU part has them
  --channel-multiple=N     pads the channels of convolutions to a multiple of N (default 1)
  --bf16-activations       stores activations in bf16, as the GPU part has them under --precision bf16
  --bucket-bytes=N         bytes of gradients that one all-reduce sums (default 26214400)
  --verbose, -v            says how long each pass took, on standard error
  --message-format=FORMAT  human (default), json: one object a message, on standard error
  --pass-help              lists all passes
";

/// What the arguments ask for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Arguments {
    /// The graph's file; None stands for standard input.
    pub file: Option<String>,
    /// Which passes.
    pub selection: Selection,
    /// Their options.
    pub options: Options,
    /// Whether messages are JSON.
    pub json: bool,
    /// Whether the time of each pass is said.
    pub verbose: bool,
    /// A text that stands for all work: `--help` or `--pass-help`.
    pub help: Option<String>,
}

impl Arguments {
    /// Reads arguments as they stand on a command line or in a `// RUN:` line.
    pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Arguments, String> {
        let mut parsed = Arguments::default();
        let mut files = 0;
        for argument in arguments {
            let argument = argument.as_ref();
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value)),
                _ => (argument, None),
            };
            if parsed.set(flag, value)? {
                continue;
            }
            if flag.starts_with("--") {
                return Err(format!("unknown option {argument}; --help lists all"));
            }
            files += 1;
            parsed.file = (argument != "-").then(|| argument.to_string());
        }
        match files {
            0 | 1 => Ok(parsed),
            _ => Err("more than one file was given".to_string()),
        }
    }

    /// Takes one option over; false when there is none of this name.
    fn set(&mut self, flag: &str, value: Option<&str>) -> Result<bool, String> {
        let needed = || {
            value
                .filter(|v| !v.is_empty())
                .ok_or_else(|| format!("{flag} needs a value: {flag}=..."))
        };
        let list = || {
            Ok::<_, String>(
                needed()?
                    .split(',')
                    .map(|s| s.trim().to_string())
                    .collect::<Vec<_>>(),
            )
        };
        fn word<T: FromStr<Err = String>>(flag: &str, value: &str) -> Result<T, String> {
            value.parse().map_err(|e| format!("{flag}: {e}"))
        }
        match flag {
            "--passes" => self.selection.passes = list()?,
            "--skip" => self.selection.skip = list()?,
            "--stop-after" => self.selection.stop_after = Some(needed()?.to_string()),
            "--print-ir-after" => self.selection.print_ir_after = PrintAfter::Passes(list()?),
            "--print-ir-after-all" => self.selection.print_ir_after = PrintAfter::All,
            "--mode" => self.options.mode = word(flag, needed()?)?,
            "--bn" => self.options.batch_norm = word(flag, needed()?)?,
            "--loss" => self.options.loss = word(flag, needed()?)?,
            "--loss-output" => self.options.loss_output = Some(needed()?.to_string()),
            "--input-gradients" => self.options.input_gradients = true,
            "--running-var" => {
                let value = needed()?;
                let rule = RunningVar::from_word(value, &[]);
                let message = || format!("{flag}: \"{value}\" is none of pytorch, population");
                self.options.running_var = rule.ok_or_else(message)?;
            }
            "--batch" => self.options.batch_bound = positive(flag, needed()?)?,
            "--channels-last" => self.options.channels_last = true,
            "--channel-multiple" => self.options.channel_multiple = positive(flag, needed()?)?,
            "--bf16-activations" => self.options.bf16_activations = true,
            "--bucket-bytes" => self.options.bucket_bytes = positive(flag, needed()?)? as u64,
            "--verbose" | "-v" => self.verbose = true,
            "--message-format" => {
                self.json = match needed()? {
                    "human" => false,
                    "json" => true,
                    other => return Err(format!("{flag}: \"{other}\" is none of human, json")),
                }
            }
            "--pass-help" => self.help = Some(pipelines::help()),
            "--help" | "-h" => self.help = Some(HELP.to_string()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn positive(flag: &str, value: &str) -> Result<usize, String> {
    let n = value.parse().ok().filter(|&n: &usize| n > 0);
    n.ok_or_else(|| format!("{flag}: \"{value}\" is not a positive number"))
}

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
    use super::*;
    use crate::options::{BatchNormMode, Loss, Mode};

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
