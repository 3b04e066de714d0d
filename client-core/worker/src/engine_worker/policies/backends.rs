//! Who computes the policy's decisions. burn flex's module starts with the engine worker, and once more if it fails; after that,
//! and while a fresh checkout's server still builds it, the closed form decides. burn-wgpu's is started when the page asks for it, has to decide as burn flex does, and is left at
//! the first fault.

use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::rc::Rc;

use wasm_bindgen_futures::spawn_local;

use super::Held;
use super::link::{Decided, Fault, Module, PolicyLink};
use crate::engine_worker::EngineWorker;
use crate::fetch;
use client::offload::ports::Clock as _;
use client::offload::signal::Notify;
use client::protocol::worker::Event;
use client::protocol::world::PolicyBackend;
use mec::World;
use policy::GoldenCase;

/// burn flex's module is started so many times; a fault that comes again would come a third time.
const MAX_STARTS: u32 = 2;
/// What is beside this worker, where xtask has built it.
const LIST: &str = "assets.json";
/// burn flex's module, as the list names it.
const CPU_MODULE: &str = "\"policy_cpu_bg.wasm\"";
/// Time between two looks at the list.
const LOOK_EVERY_S: f64 = 10.0;
/// So often it is looked: for an hour.
const MAX_LOOKS: u32 = 360;
/// Backends may differ by this much, in α and in watts; more means that the GPU computes nonsense.
const MAX_DIFFERENCE: f64 = 1e-3;

/// The two modules.
#[derive(Default)]
pub(super) struct Backends {
    cpu: RefCell<Cpu>,
    /// How often burn flex's module was started.
    starts: Cell<u32>,
    /// Rings when burn flex's module is up or has failed.
    settled: Notify,
    pub(super) gpu: RefCell<Option<Rc<PolicyLink>>>,
    /// Raised with every switch, so that a slow start that nobody wants any more is noticed.
    switches: Cell<u32>,
}

/// burn flex's module.
#[derive(Default)]
enum Cpu {
    /// Not running, and may be started.
    #[default]
    Closed,
    Starting,
    /// Being built behind the running server of a fresh checkout.
    Awaited,
    Up(Rc<PolicyLink>),
    /// Failed too often; why.
    Gone(String),
}

impl EngineWorker {
    /// burn flex's module; `None` while it is not there. One that may still be started is.
    pub(super) fn cpu_link(self: &Rc<Self>) -> Option<Rc<PolicyLink>> {
        self.open_cpu();
        match &*self.policies.backends.cpu.borrow() {
            Cpu::Up(link) => Some(Rc::clone(link)),
            Cpu::Closed | Cpu::Starting | Cpu::Awaited | Cpu::Gone(_) => None,
        }
    }

    /// Starts burn flex's module, unless it was. The world is shown again when it is up.
    pub(super) fn open_cpu(self: &Rc<Self>) {
        let backends = &self.policies.backends;
        if !matches!(*backends.cpu.borrow(), Cpu::Closed) {
            return;
        }
        *backends.cpu.borrow_mut() = Cpu::Starting;
        backends.starts.set(backends.starts.get() + 1);
        let engine_worker = Rc::clone(self);
        spawn_local(async move {
            let open = async || PolicyLink::open(Module::Cpu, engine_worker.clock.clone()).await;
            let mut opened = open().await;
            if opened.is_err() && engine_worker.wait_until_built().await {
                opened = open().await;
            }
            match opened {
                Ok(link) => {
                    *engine_worker.policies.backends.cpu.borrow_mut() = Cpu::Up(Rc::new(link));
                    engine_worker.policies.backends.settled.notify_all();
                    engine_worker.show_world();
                }
                Err(problem) => engine_worker.close_cpu(&problem, false),
            }
        });
    }

    /// Whether burn flex's module was missing because it is still being built; returns when it is there.
    async fn wait_until_built(self: &Rc<Self>) -> bool {
        for look in 0..MAX_LOOKS {
            match fetch::text(LIST).await {
                Ok(list) if list.contains(CPU_MODULE) => return look > 0,
                // Nobody keeps a list here: all that will ever be there is there.
                Err(_) if look == 0 => return false,
                // The server is away, and may come back.
                Ok(_) | Err(_) => {}
            }
            if look == 0 {
                let backends = &self.policies.backends;
                *backends.cpu.borrow_mut() = Cpu::Awaited;
                backends.settled.notify_all();
                self.notice(
                    "The policy's module is still being built behind the running server. Until it is there, within a few \
                     minutes, the closed form decides."
                        .to_owned(),
                );
                self.show_world();
            }
            self.clock.sleep(LOOK_EVERY_S).await;
        }
        true
    }

    /// burn flex's module once it is up.
    async fn cpu(self: &Rc<Self>) -> Result<Rc<PolicyLink>, String> {
        let backends = &self.policies.backends;
        let look = || {
            self.open_cpu();
            match &*backends.cpu.borrow() {
                Cpu::Up(link) => Some(Ok(Rc::clone(link))),
                Cpu::Gone(problem) => Some(Err(format!("the policy's module failed: {problem}"))),
                Cpu::Awaited => {
                    Some(Err("the policy's module is still being built; try again in a few minutes".to_owned()))
                }
                Cpu::Closed | Cpu::Starting => None,
            }
        };
        backends.settled.wait_for(look).await
    }

    /// Lets burn flex do something, and closes its module if that shows that it does not work.
    pub(super) async fn on_cpu<T>(
        self: &Rc<Self>,
        link: &Rc<PolicyLink>,
        work: impl AsyncFnOnce(&PolicyLink) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let done = work(link).await;
        if let Err(Fault::Broken(problem)) = &done {
            let is_current =
                matches!(&*self.policies.backends.cpu.borrow(), Cpu::Up(current) if Rc::ptr_eq(current, link));
            // Whoever else waited for the same module has closed it already.
            if is_current {
                self.close_cpu(problem, true);
            }
        }
        done
    }

    /// Ends burn flex's module. Whoever needs it next starts it again, if it was started only once.
    fn close_cpu(self: &Rc<Self>, problem: &str, was_up: bool) {
        let backends = &self.policies.backends;
        let again = backends.starts.get() < MAX_STARTS;
        *backends.cpu.borrow_mut() = if again { Cpu::Closed } else { Cpu::Gone(problem.to_owned()) };
        backends.settled.notify_all();
        if !again {
            self.notice(format!(
                "The policy's module does not work ({problem}); the closed form decides. Reload the page to try again."
            ));
        } else if was_up {
            self.notice(format!(
                "The policy's module failed ({problem}). It is started once more; until then the closed form decides."
            ));
        }
        self.show_world();
    }

    /// Gives burn flex a policy, once its module is up, and says for which numbers of devices it decides.
    pub(super) async fn try_policy(self: &Rc<Self>, held: &Held) -> Result<RangeInclusive<usize>, String> {
        let link = self.cpu().await?;
        self.on_cpu(&link, async |link| link.load(held).await).await.map_err(Fault::problem)
    }

    /// Switches the backend and says which one decides from now on.
    pub(in crate::engine_worker) async fn use_policy_backend(self: &Rc<Self>, backend: PolicyBackend) {
        let backends = &self.policies.backends;
        let switch = backends.switches.get() + 1;
        backends.switches.set(switch);
        let wants_gpu = backend == PolicyBackend::BurnWgpu;
        if !wants_gpu {
            backends.gpu.borrow_mut().take();
        } else if backends.gpu.borrow().is_none() {
            let started = self.start_gpu().await;
            if backends.switches.get() != switch {
                return;
            }
            match started {
                Ok(link) => *backends.gpu.borrow_mut() = Some(link),
                Err(problem) => return self.leave_gpu(&problem),
            }
        }
        self.emit(Event::PolicyBackend { backend, note: None });
        self.show_world();
    }

    /// Back to burn flex, with the reason.
    pub(super) fn leave_gpu(self: &Rc<Self>, problem: &str) {
        let backends = &self.policies.backends;
        backends.gpu.borrow_mut().take();
        let instead = match &*backends.cpu.borrow() {
            Cpu::Gone(_) | Cpu::Awaited => "The closed form",
            Cpu::Closed | Cpu::Starting | Cpu::Up(_) => "burn flex on the CPU",
        };
        let note = Some(format!("burn-wgpu does not decide here: {problem}. {instead} does."));
        self.emit(Event::PolicyBackend { backend: PolicyBackend::Flex, note });
    }

    /// Starts the module and sees that it decides as burn flex does.
    async fn start_gpu(self: &Rc<Self>) -> Result<Rc<PolicyLink>, String> {
        let link = Rc::new(PolicyLink::open(Module::Gpu, self.clock.clone()).await?);
        let Some(world) = self.world.world() else { return Ok(link) };
        let Some(held) = self.held(world.slots().len()) else { return Ok(link) };
        let (gpu, _) = link.decide(&held, &world).await.map_err(Fault::problem)?;
        let cpu = self.cpu().await?;
        let (flex, _) = self.decide_on_cpu(&cpu, &held, &world).await.map_err(Fault::problem)?;
        let expected = GoldenCase { policy: String::new(), observation: Vec::new(), decision: flex };
        match expected.difference(&gpu) {
            difference if difference <= MAX_DIFFERENCE => Ok(link),
            difference => Err(format!("it decides otherwise than the CPU, by {difference:.2e}")),
        }
    }

    /// What burn flex decides about the present slot.
    pub(super) async fn decide_on_cpu(
        self: &Rc<Self>,
        link: &Rc<PolicyLink>,
        held: &Held,
        world: &World,
    ) -> Result<Decided, Fault> {
        self.on_cpu(link, async |link| link.decide(held, world).await).await
    }
}
