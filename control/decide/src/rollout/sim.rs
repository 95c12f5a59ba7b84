//! The simulation: a seed makes a spec, a world and a list of things that happen to it; the controller is run in it decision by
//! decision, and every rule is checked at each. Tests only.
//!
//! A walk is deterministic: its seed is enough to see it again. A list that breaks a rule is made shorter before it is shown.
//!
//! | file | what |
//! |---|---|
//! | `spec`, `happening`, `dice` | what a seed makes |
//! | `world`, `api` | the objects as the API server has them; what becomes of a write |
//! | `pods`, `fleet`, `users` | ReplicaSets and pods; proxies; everybody else |
//! | `workload` | the Deployment of a `workloadRef` |
//! | `controller` | caches, looks, writes, failures, deaths around [`super::decide`] |
//! | `doubt` | writes that got no answer |
//! | `rules`, `guards`, `ending` | what must hold of a decision, of a write, of the end |
//! | `switches` | what must hold of a decision of blue-green |
//! | `shrink` | the shorter list |
//! | `replay` | Argo's recorded runs, played again and compared |

use std::fmt;

use controller::Controller;
use dice::Dice;
use ending::Ending;
use happening::Happening;
use spec::Features;
use world::{Due, World};

use super::decision::Decision;
use super::observed::Observed;
use super::state::State;

mod api;
mod controller;
mod dice;
mod doubt;
mod ending;
mod fleet;
mod guards;
mod happening;
mod pods;
mod replay;
mod rules;
mod shrink;
mod spec;
mod switches;
mod tampers;
mod tests;
mod users;
mod workload;
mod world;

/// Breaks a decision, where a rule is to be shown to notice.
type Tamper = fn(&mut Decision, Scene<'_>);

/// What a decision that is to be broken was made from.
#[derive(Clone, Copy, Debug)]
struct Scene<'a> {
    state: &'a State,
    observed: &'a Observed,
    now: jiff::Timestamp,
    /// It is the decision made once more.
    is_second: bool,
}

/// A rule that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Broken {
    rule: &'static str,
    why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.why)
    }
}

/// What a seed makes.
#[derive(Clone, Debug)]
struct Script {
    seed: u64,
    spec: serde_json::Value,
    /// The annotation that asks for routing, where a strategy has no block for it.
    proxy: Option<String>,
    /// What happens, in order of time.
    list: Vec<Happening>,
    ending: Ending,
    /// The walk ends after so many decisions, or with the list.
    decisions: u64,
}

impl Script {
    fn new(seed: u64, features: &Features, decisions: u64) -> Self {
        let mut dice = Dice::new(seed, "script");
        let spec = spec::spec(&mut dice, features);
        let proxy = spec::proxy(&mut dice, &spec);
        Self {
            seed,
            list: happening::list(&mut dice, features, &spec),
            proxy,
            ending: dice.pick(&Ending::ALL),
            spec,
            decisions,
        }
    }

    /// Walks it. Returns the number of decisions, or the rule that broke and how many things had happened by then.
    fn walk(&self, tamper: Option<Tamper>) -> Result<u64, (Broken, usize)> {
        let mut walk = Walk::new(self, tamper);
        let result = walk.walk(self);
        result
            .map(|()| walk.controller.looks)
            .map_err(|broken| (broken, walk.happened))
    }

    /// Walks it and tells how it went, line by line.
    fn tell(&self, tamper: Option<Tamper>) -> Vec<String> {
        let mut walk = Walk::new(self, tamper);
        walk.world.log = Some(Vec::new());
        let result = walk.walk(self);
        let mut log = walk.world.log.take().unwrap_or_default();
        log.extend(result.err().map(|broken| format!("BROKEN {broken}")));
        log
    }
}

/// A walk under way.
#[derive(Debug)]
struct Walk {
    world: World,
    controller: Controller,
    happened: usize,
}

impl Walk {
    fn new(script: &Script, tamper: Option<Tamper>) -> Self {
        let mut world = World::new(script.seed, &script.spec, script.proxy.as_deref());
        let mut controller = Controller::new(&world);
        controller.tamper = tamper;
        world.after(0, Due::Start);
        Self {
            world,
            controller,
            happened: 0,
        }
    }

    fn walk(&mut self, script: &Script) -> Result<(), Broken> {
        for happening in &script.list {
            self.run_until(happening.at)?;
            if self.controller.looks >= script.decisions {
                break;
            }
            self.happened += 1;
            self.controller.restless = 0;
            self.world.happen(&happening.what);
        }
        ending::end(self, script.ending)
    }

    /// Lets so many milliseconds pass.
    fn run_for(&mut self, milliseconds: i64) -> Result<(), Broken> {
        self.controller.restless = 0;
        self.run_until(self.world.now + milliseconds)
    }

    fn run_until(&mut self, time: i64) -> Result<(), Broken> {
        while let Some(due) = self.world.next_due(time) {
            self.follow(due)?;
        }
        self.world.now = self.world.now.max(time);
        Ok(())
    }

    fn follow(&mut self, due: Due) -> Result<(), Broken> {
        let Self {
            world, controller, ..
        } = self;
        if matches!(
            due,
            Due::Pod(..) | Due::Gone(_) | Due::Take(_) | Due::Run(_)
        ) {
            controller.restless = 0;
        }
        match due {
            Due::Start => controller.start(world),
            Due::Look => {
                controller.look(world)?;
                ensure_rest(controller)?;
            }
            Due::Write => controller.write(world)?,
            Due::Cache(kind) => {
                world.stale[kind.index()] = false;
                controller.hear(world, kind);
            }
            Due::Set(id) => world.follow_set(id),
            Due::Pod(id, ready) => world.turn_pod(id, ready),
            Due::Gone(id) => world.gone(id),
            Due::Take(id) => world.take(id),
            Due::Report(id) => {
                if world.report(id) {
                    controller.restless = 0;
                    controller.wake(world, 2);
                }
            }
            Due::Run(name) => world.follow_run(&name),
        }
        Ok(())
    }
}

/// However long nobody does anything, it does not go on writing for ever.
fn ensure_rest(controller: &Controller) -> Result<(), Broken> {
    match controller.restless < RESTLESS && controller.looks < LOOKS {
        true => Ok(()),
        false => Err(Broken {
            rule: "it_comes_to_rest",
            why: format!(
                "{} looks, the last {} of them wrote",
                controller.looks, controller.restless
            ),
        }),
    }
}

/// More looks than any number of steps, pods and runs of a walk need between two things that happen.
const RESTLESS: u32 = 100;

/// More looks than any walk has.
const LOOKS: u64 = 20_000;
