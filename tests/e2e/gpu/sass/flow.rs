//! The loops of a kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::listing::Kernel;

/// The instructions of a loop, by index, by the loop's first instruction. What a branch leaves for code that stands
/// elsewhere and comes back belongs to the loop; functions that are called do not.
pub type Loops = BTreeMap<usize, BTreeSet<usize>>;

/// All loops: for each instruction that is reached again from behind it, what lies between.
pub fn loops(kernel: &Kernel) -> Loops {
    let next: Vec<Vec<usize>> = (0..kernel.instructions.len())
        .map(|index| kernel.next(index))
        .collect();
    let mut before = vec![Vec::new(); next.len()];
    let mut loops = Loops::new();
    for (tail, head) in returning(&next, &mut before) {
        let members = loops.entry(head).or_insert_with(|| BTreeSet::from([head]));
        let mut waiting = vec![tail];
        while let Some(index) = waiting.pop() {
            if members.insert(index) {
                waiting.extend(&before[index]);
            }
        }
    }
    loops
}

/// The edges that return to an instruction on the path from the first one, found in depth; fills `before` with the
/// instructions before each that can be reached.
fn returning(next: &[Vec<usize>], before: &mut [Vec<usize>]) -> Vec<(usize, usize)> {
    let mut edges = Vec::new();
    let (mut seen, mut on_path) = (vec![false; next.len()], vec![false; next.len()]);
    let mut path: Vec<(usize, usize)> = Vec::new();
    let enter = |index: usize, seen: &mut Vec<bool>, on_path: &mut Vec<bool>| {
        seen[index] = true;
        on_path[index] = true;
        (index, 0)
    };
    if !next.is_empty() {
        path.push(enter(0, &mut seen, &mut on_path));
    }
    while let Some((index, followed)) = path.last_mut() {
        let Some(&successor) = next[*index].get(*followed) else {
            on_path[*index] = false;
            path.pop();
            continue;
        };
        *followed += 1;
        before[successor].push(*index);
        if on_path[successor] {
            edges.push((*index, successor));
        } else if !seen[successor] {
            path.push(enter(successor, &mut seen, &mut on_path));
        }
    }
    edges
}

/// Those that hold no other one.
pub fn innermost(loops: &Loops) -> impl Iterator<Item = &BTreeSet<usize>> {
    loops.iter().filter_map(|(head, members)| {
        let mut inner = members
            .iter()
            .filter(|index| *index != head && loops.contains_key(index));
        inner.next().is_none().then_some(members)
    })
}

#[cfg(test)]
mod tests {
    use super::super::listing::kernels;
    use super::*;

    /// Two loops in one, with code of the inner one behind the kernel's end and a function behind that.
    const LISTING: &str = "
\t.section\t.text.k,\"ax\",@progbits
k:
.text.k:
        /*0000*/                   MOV R0, RZ ;
.L_x_0:
        /*0010*/                   IADD3 R0, R0, 0x1, RZ ;
.L_x_1:
        /*0020*/                   BSSY B0, `(.L_x_2) ;
        /*0030*/               @P0 BRA `(.L_x_3) ;
        /*0040*/                   FADD R1, R1, R2 ;
.L_x_2:
        /*0050*/                   BSYNC B0 ;
        /*0060*/                   BRA P1, `(.L_x_1) ;
        /*0070*/              @!P2 CALL.REL.NOINC `(.L_x_0) ;
        /*0080*/                   EXIT ;
.L_x_3:
        /*0090*/                   CALL.REL.NOINC `($f) ;
        /*00a0*/                   BRA `(.L_x_2) ;
$f:
        /*00b0*/                   MUFU.RCP R1, R1 ;
        /*00c0*/                   RET.REL.NODEC R2 `(k) ;
.L_x_4:
        /*00d0*/                   BRA `(.L_x_4);
";

    #[test]
    fn loops_are_found_with_what_stands_elsewhere() {
        let all = kernels(LISTING);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].name.as_str(), all[0].instructions.len()), ("k", 14));
        let loops = loops(&all[0]);
        let heads: Vec<usize> = loops.keys().copied().collect();
        assert_eq!(heads, [1, 2]);
        let inner: Vec<usize> = loops[&2].iter().copied().collect();
        assert_eq!(inner, [2, 3, 4, 5, 6, 9, 10]);
        let outer: Vec<usize> = loops[&1].iter().copied().collect();
        assert_eq!(outer, [1, 2, 3, 4, 5, 6, 7, 9, 10]);
        assert_eq!(innermost(&loops).count(), 1);
        assert_eq!(innermost(&loops).next(), Some(&loops[&2]));
    }
}
