//! What a benchmark is: work in turns that are all alike, of which one part is measured.

use std::ops::Range;

/// Work that can be repeated turn by turn. Same turns, same instructions: a work takes neither time nor randomness from
/// outside, and its tables have fixed keys.
pub(crate) trait Work {
    /// Does what the next turn needs and what is not measured.
    fn prepare(&mut self) {}

    /// Does what is measured.
    fn turn(&mut self);

    /// Operations that came to their good end so far, as the machine under test counts them. A benchmark that measures
    /// refusals by mistake shows here.
    fn done(&self) -> u64;
}

/// One line of the tables.
#[derive(Clone, Copy)]
pub(crate) struct Bench {
    /// `part/what`: what the baseline and the command line call it.
    pub(crate) name: &'static str,
    /// What one operation is.
    pub(crate) op: &'static str,
    /// Operations of a turn.
    pub(crate) ops: u64,
    /// Turns before the measured ones: until tables and buffers have their size.
    pub(crate) warm: u32,
    /// Turns that are measured.
    pub(crate) turns: u32,
    /// Makes the work.
    pub(crate) start: fn() -> Box<dyn Work>,
}

/// The function whose instructions, with all that it calls, valgrind counts: see `count.rs`.
#[inline(never)]
pub(crate) fn measured(work: &mut dyn Work) {
    work.turn();
    // The call above must not become a jump, or this function would end before its work.
    std::hint::black_box(());
}

impl Bench {
    /// Operations that are measured.
    pub(crate) fn ops_measured(&self) -> u64 {
        self.ops * u64::from(self.turns)
    }

    /// Does the work, and hands each turn that counts to `measure`, which must do it once.
    pub(crate) fn run(&self, mut measure: impl FnMut(&mut dyn Work)) {
        let mut work = (self.start)();
        for _ in 0..self.warm {
            work.prepare();
            work.turn();
        }
        let before = work.done();
        for _ in 0..self.turns {
            work.prepare();
            measure(&mut *work);
        }
        let done = work.done() - before;
        assert_eq!(done, self.ops_measured(), "{}: not each operation was done", self.name);
    }
}

/// Work that is one closure; it returns how many operations were done.
pub(crate) struct Whole<F> {
    turn: F,
    done: u64,
}

impl<F: FnMut() -> u64 + 'static> Whole<F> {
    pub(crate) fn boxed(turn: F) -> Box<dyn Work> {
        Box::new(Self { turn, done: 0 })
    }
}

impl<F: FnMut() -> u64> Work for Whole<F> {
    fn turn(&mut self) {
        self.done += (self.turn)();
    }

    fn done(&self) -> u64 {
        self.done
    }
}

/// A machine that is driven in a cycle of steps.
pub(crate) trait Cycle: 'static {
    /// The steps, in order; after the last one the first one follows.
    const STEPS: &'static [fn(&mut Self)];

    /// See [`Work::done`]. A cycle is counted at its first step or at its last one, so that a part of it counts once.
    fn done(&self) -> u64;
}

/// Work that is some steps of a cycle; the others are done and not measured.
pub(crate) struct Steps<C> {
    cycle: C,
    measured: Range<usize>,
    next: usize,
}

impl<C: Cycle> Steps<C> {
    /// Measures these steps.
    pub(crate) fn boxed(cycle: C, measured: Range<usize>) -> Box<dyn Work> {
        assert!(!measured.is_empty() && measured.end <= C::STEPS.len(), "there are such steps");
        Box::new(Self { cycle, measured, next: 0 })
    }

    /// Measures them all.
    pub(crate) fn whole(cycle: C) -> Box<dyn Work> {
        Self::boxed(cycle, 0..C::STEPS.len())
    }
}

impl<C: Cycle> Work for Steps<C> {
    fn prepare(&mut self) {
        while self.next != self.measured.start {
            C::STEPS[self.next](&mut self.cycle);
            self.next = (self.next + 1) % C::STEPS.len();
        }
    }

    fn turn(&mut self) {
        for step in &C::STEPS[self.measured.clone()] {
            step(&mut self.cycle);
        }
        self.next = self.measured.end % C::STEPS.len();
    }

    fn done(&self) -> u64 {
        self.cycle.done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Letters {
        said: String,
        cycles: u64,
    }

    impl Cycle for Letters {
        const STEPS: &'static [fn(&mut Self)] = &[
            |letters| letters.said.push('a'),
            |letters| letters.said.push('b'),
            |letters| {
                letters.said.push('c');
                letters.cycles += 1;
            },
        ];

        fn done(&self) -> u64 {
            self.cycles
        }
    }

    #[test]
    fn steps_that_are_not_measured_are_done_between_the_turns() {
        let measured = 1..2;
        let mut steps = Steps { cycle: Letters::default(), measured, next: 0 };
        for _ in 0..2 {
            steps.prepare();
            steps.cycle.said.push('[');
            steps.turn();
            steps.cycle.said.push(']');
        }
        assert_eq!(steps.cycle.said, "a[b]ca[b]");
    }

    #[test]
    fn a_turn_may_be_the_whole_cycle() {
        let bench = Bench {
            name: "letters",
            op: "cycle",
            ops: 1,
            warm: 2,
            turns: 3,
            start: || Steps::whole(Letters::default()),
        };
        let mut turns = 0;
        bench.run(|work| {
            turns += 1;
            measured(work);
        });
        assert_eq!(turns, 3);
    }

    #[test]
    #[should_panic(expected = "not each operation was done")]
    fn work_that_comes_to_no_good_end_is_noticed() {
        let start = || Whole::boxed(|| 0);
        Bench { name: "idle", op: "none", ops: 1, warm: 0, turns: 1, start }.run(measured);
    }
}
