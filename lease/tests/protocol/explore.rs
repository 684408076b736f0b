//! Depth first through all courses, by replay: a state that was met before ends a course.

use std::collections::HashSet;
use std::fmt;
use std::ops::AddAssign;

use crate::run::{Act, Run, Scenario};

/// How much was gone through.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Explored {
    /// Different states.
    pub(crate) states: usize,
    /// Ways from one to the next.
    pub(crate) steps: usize,
    /// Courses that were followed to their end.
    pub(crate) courses: usize,
    /// Steps of the longest.
    pub(crate) longest: usize,
}

/// Goes through all that can happen; the error is a course that should not be, step by step.
pub(crate) fn explore(scenario: &Scenario) -> Result<Explored, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let _within = runtime.enter();
    let mut explored = Explored::default();
    let mut met = HashSet::new();
    let mut finished = HashSet::new();
    let mut ahead = vec![Vec::new()];
    while let Some(mut course) = ahead.pop() {
        explored.courses += 1;
        let mut run = Run::start(scenario, &runtime);
        let (last, before) = course.split_last().map_or((None, [].as_slice()), |(last, before)| (Some(*last), before));
        let mut outcome = before.iter().try_for_each(|act| run.replay(*act)).and_then(|()| last.map_or(Ok(()), |act| run.act(act)));
        while outcome.is_ok() && met.insert(run.fingerprint()) {
            let mut acts = run.acts().into_iter();
            let Some(first) = acts.next() else { break };
            ahead.extend(acts.map(|act| course.iter().copied().chain([act]).collect::<Vec<Act>>()));
            course.push(first);
            outcome = run.act(first);
            explored.steps += 1;
        }
        explored.longest = explored.longest.max(course.len());
        if outcome.is_ok() {
            outcome = run.finish(&mut finished);
        }
        outcome.map_err(|violation| format!("{violation}\nafter {course:?}"))?;
    }
    explored.states = met.len();
    Ok(explored)
}

impl AddAssign for Explored {
    fn add_assign(&mut self, other: Self) {
        let Self { states, steps, courses, longest } = other;
        self.states += states;
        self.steps += steps;
        self.courses += courses;
        self.longest = self.longest.max(longest);
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, steps, courses, longest } = self;
        write!(out, "{states} states, {steps} steps, {courses} courses, the longest of {longest} steps")
    }
}
