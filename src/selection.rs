//! Which passes run, and which must.

use syncbn_passes::Selection;

use crate::{Error, Options};

/// Which passes run for one part of the executable, whose pipeline is named.
pub fn selection(options: &Options, pipeline: &str) -> Selection {
    Selection {
        passes: (options.passes.clone()).unwrap_or_else(|| vec![pipeline.to_string()]),
        skip: options.skip.clone(),
        stop_after: options.stop_after.clone(),
        print_ir_after: options.print_after.clone(),
    }
}

/// Passes without which an executable would run and compute something else.
const NEEDED: [(&str, &[&str]); 2] = [
    (
        "train",
        &[
            "plan-memory",
            "set-batch-norm-mode",
            "add-loss",
            "differentiate",
            "bn-to-syncbn",
            "insert-gradient-all-reduce",
        ],
    ),
    ("infer", &["plan-memory", "set-batch-norm-mode"]),
];

/// Refuses options under which a needed pass would not run, or one that another option is for.
pub fn check_passes(options: &Options) -> Result<(), Error> {
    let mut errors = Vec::new();
    for (part, needed) in NEEDED {
        if !(if part == "train" {
            options.mode.trains()
        } else {
            options.mode.infers()
        }) {
            continue;
        }
        let passes = match selection(options, part).list() {
            Ok(passes) => passes,
            Err(error) => {
                errors.push(error.into());
                continue;
            }
        };
        let names: Vec<&str> = passes.iter().map(|pass| pass.name()).collect();
        if !options.schedules.is_empty() && !names.contains(&"choose-schedules") {
            errors.push(Error::user(
                format!(
                    "--schedule says how to {part}, and pass choose-schedules, which reads it, would not run"
                ),
                "change --passes, --skip or --stop-after, or leave --schedule out",
            ));
        }
        errors.extend(needed.iter().filter(|pass| !names.contains(pass)).map(|missing| {
            Error::user(
                format!("pass {missing} would not run, and an executable cannot {part} without it"),
                "change --passes, --skip or --stop-after, or emit a text form such as --emit graph-opt",
            )
        }));
    }
    Error::check(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_that_no_pass_reads_is_refused() {
        let schedule = "stem=direct(lanes = 16, pixels = 8, vectors = 2, rows = 1)".parse();
        let mut options = Options {
            schedules: schedule.into_iter().collect(),
            ..Options::default()
        };
        assert!(check_passes(&options).is_ok());
        options.skip = vec!["choose-schedules".to_string()];
        let error = check_passes(&options).unwrap_err();
        assert!(
            error.diagnostics[0]
                .message
                .contains("--schedule says how to train")
        );
        options.schedules.clear();
        assert!(check_passes(&options).is_ok());
    }
}
