//! Faults in kernels whose threads work alone.

use super::kernel::{Kernel, Mutant};

impl Kernel<'_> {
    /// All of them.
    pub fn plain(&self) -> Vec<Mutant> {
        let faults = [self.bound(), self.turn(), self.sign()];
        faults.into_iter().flatten().collect()
    }

    /// The loop over all threads' elements takes one element too many: its guard and its end compare with <=.
    fn bound(&self) -> Option<Mutant> {
        let compares: Vec<_> = self
            .lines
            .iter()
            .filter(|(_, l)| l.contains("icmp slt i32"))
            .collect();
        let ends = [compares.first()?, compares.last()?];
        let changed = ends.map(|(i, line)| (*i, line.replace("icmp slt", "icmp sle")));
        self.mutant("one element too many", changed.into())
    }

    /// The last loop inside takes one turn less.
    fn turn(&self) -> Option<Mutant> {
        let (i, line) = self
            .lines
            .iter()
            .rev()
            .find(|(_, l)| l.contains("icmp eq i64 %indvars.iv.next"))?;
        let (head, count) = line.rsplit_once(", ")?;
        let count: u64 = count.parse().ok().filter(|&n| n > 1)?;
        self.mutant("one turn less", vec![(*i, format!("{head}, {}", count - 1))])
    }

    /// The sum of a product is a difference. What is added to 0 may be subtracted from it as well.
    fn sign(&self) -> Option<Mutant> {
        let is_sum = |l: &str| l.contains(" = fadd ") || l.contains(" = fsub ");
        let with_zero = |l: &str| l.contains(" 0.000000e+00") || l.contains("zeroinitializer");
        let (i, line) = self.lines.iter().find(|(_, l)| is_sum(l) && !with_zero(l))?;
        let changed = match line.contains(" = fadd ") {
            true => line.replace(" = fadd ", " = fsub "),
            false => line.replace(" = fsub ", " = fadd "),
        };
        self.mutant("another sign", vec![(*i, changed)])
    }
}
