//! What a user sees of a running training: a bar on a terminal, plain lines in a pipe.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

use crate::report;

use super::log::{EpochLine, StepLine};

/// About how many step lines a pipe gets.
const LINES: u64 = 20;

/// The progress of a run.
pub struct Progress {
    bar: Option<ProgressBar>,
    steps: u64,
    shown: bool,
}

impl Progress {
    /// The progress of `steps` steps; nothing is printed unless it is `shown`.
    pub fn start(steps: u64, shown: bool) -> Self {
        let bar = (shown && stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(steps);
            let style = ProgressStyle::with_template("{bar:30} step {pos}/{len} {msg} [{elapsed}<{eta}]");
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        Progress { bar, steps, shown }
    }

    /// Shows a step.
    pub fn step(&mut self, line: &StepLine) {
        if !self.shown {
            return;
        }
        let StepLine {
            step,
            epoch,
            loss,
            lr,
            images_per_s,
            ..
        } = line;
        let text = format!(
            "epoch {epoch} loss {loss:.5} lr {:?} {images_per_s:.0} images/s",
            *lr as f32
        );
        match &self.bar {
            Some(bar) => {
                bar.set_message(text);
                bar.set_position(*step);
            }
            None => {
                if *step == 1 || *step == self.steps || step.is_multiple_of(self.steps.div_ceil(LINES)) {
                    report::line(&format!("step {step}/{} {text}", self.steps));
                }
            }
        }
    }

    /// Shows an epoch's validation.
    pub fn epoch(&mut self, line: &EpochLine) {
        let Some(loss) = line.val_loss.filter(|_| self.shown) else {
            return;
        };
        let accuracy = line
            .val_accuracy
            .map(|value| format!(" validation accuracy {value:.4}"));
        let text = format!(
            "epoch {} validation loss {loss:.5}{}",
            line.epoch_end,
            accuracy.unwrap_or_default()
        );
        match &self.bar {
            Some(bar) => bar.suspend(|| report::line(&text)),
            None => report::line(&text),
        }
    }

    /// Ends the bar.
    pub fn finish(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.abandon();
        }
    }
}
