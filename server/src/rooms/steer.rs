//! A presenter's commands.

use client::protocol::rooms::down::ServerMessage;
use client::protocol::rooms::up::Command;
use client::protocol::rooms::{CloseReason, Part, RoomSettings};

use super::cells::{Cells, overflow};
use super::compare::Compare;
use super::member::Member;
use super::radio::Radio;
use super::registry::SEEDS;
use super::rounds::RoundState;
use super::state::{Effect, MEMBERS, State, Totals};

impl State {
    /// Carries a command out.
    ///
    /// # Errors
    /// Why it cannot be, in words for the presenter; nothing has changed then.
    pub fn command(&mut self, command: Command) -> Result<Vec<Effect>, String> {
        match command {
            Command::Settings(settings) => self.set(settings),
            Command::Rename { mlu, name } => {
                self.known(mlu)?;
                Ok(self.named(mlu, &name))
            }
            Command::Mute { mlu, muted } => {
                self.known(mlu)?;
                Ok(self.change(mlu, |identity| identity.muted = muted))
            }
            Command::Remove { mlu } => {
                self.known(mlu)?;
                Ok(self.remove(mlu))
            }
            Command::Move { mlu, cell } => self.seat_in(mlu, cell),
            Command::StartRound { questions, seconds } => {
                let number = self.round.as_ref().map_or(0, |round| round.number) + 1;
                let phones = self.members.values().filter(|member| member.is_active() && !member.identity.simulated());
                let asked = phones.map(|member| member.identity.mlu).collect();
                let round = RoundState::begin(number, &questions, seconds, self.slot, asked)?;
                let view = round.view();
                self.round = Some(round);
                self.unwritten.clear();
                Ok(vec![Effect::All(ServerMessage::Round(view))])
            }
            Command::EndRound => {
                let ended = self.round.as_mut().and_then(|round| round.end().then(|| round.view()));
                let told = ended.map(|view| vec![Effect::All(ServerMessage::Round(view))]);
                told.ok_or_else(|| "No round is open.".to_owned())
            }
            Command::Compare(request) => {
                request.check()?;
                Ok(self.told_compare(Compare::new(request)))
            }
            Command::EndCompare => match self.compare.take() {
                Some(mut compare) if compare.decider().is_some() => {
                    compare.end();
                    Ok(self.told_compare(compare))
                }
                over => {
                    self.compare = over;
                    Err("Nothing is being compared.".to_owned())
                }
            },
            Command::Rehearse { phones } => self.rehearse(phones),
            Command::Restart { seed } if seed >= SEEDS => {
                Err("A seed has to be below 2^53, so that every program reads it alike.".to_owned())
            }
            Command::Restart { seed } => Ok(self.restart(seed)),
            Command::Close => Ok(vec![Effect::Close]),
        }
    }

    fn known(&self, mlu: u32) -> Result<&Member, String> {
        let member = self.members.get(&mlu).filter(|member| member.identity.cell.is_some());
        member.ok_or_else(|| format!("There is no MLU {mlu} in the room at present."))
    }

    fn told_compare(&mut self, compare: Compare) -> Vec<Effect> {
        let view = compare.view();
        self.compare = Some(compare);
        vec![Effect::Presenters(ServerMessage::Compared(view))]
    }

    fn set(&mut self, settings: RoomSettings) -> Result<Vec<Effect>, String> {
        settings.check()?;
        self.params = settings.params()?;
        self.settings = settings;
        let seats: Vec<(u32, u32)> =
            self.members.values().filter_map(|m| Some((m.identity.mlu, m.identity.cell?))).collect();
        let mut effects = vec![Effect::All(ServerMessage::Settings(self.settings.clone()))];
        for (mlu, cell) in overflow(&seats, self.settings.cell_members) {
            effects.extend(self.change(mlu, |identity| identity.cell = Some(cell)));
        }
        let radius_m = self.params.radius_m;
        for member in self.members.values_mut() {
            let Radio { x_m, y_m, .. } = member.progress.radio;
            member.progress.radio.place(x_m, y_m, radius_m);
        }
        Ok(effects)
    }

    fn remove(&mut self, mlu: u32) -> Vec<Effect> {
        if let Some(member) = self.members.get_mut(&mlu) {
            member.identity.removed = true;
            member.connected = false;
        }
        let mut effects = self.leave(mlu);
        effects.push(Effect::Cut(mlu, CloseReason::Removed));
        effects
    }

    fn seat_in(&mut self, mlu: u32, cell: u32) -> Result<Vec<Effect>, String> {
        let own = self.known(mlu)?.identity.cell;
        let cells: Cells = self.cells();
        let new = cells.last() + 1;
        if cell == 0 || cell > new {
            return Err(format!("There is no cell {cell}; the cells are 1 to {}, and {new} opens a new one.", new - 1));
        }
        let most = self.settings.cell_members;
        if own != Some(cell) && cells.taken(cell) >= most {
            return Err(format!("Cell {cell} is full: it holds {most} devices."));
        }
        Ok(self.change(mlu, |identity| identity.cell = Some(cell)))
    }

    fn rehearse(&mut self, phones: u32) -> Result<Vec<Effect>, String> {
        let simulated: Vec<u32> =
            self.members.values().filter(|member| member.identity.simulated()).map(|m| m.identity.mlu).collect();
        let real = self.seated().count() - simulated.len();
        let wanted = phones as usize;
        if real + wanted > MEMBERS {
            return Err(format!(
                "A room holds {MEMBERS} members, of which {real} are real: {} can be simulated.",
                MEMBERS - real
            ));
        }
        let mut effects = Vec::new();
        // Those that came last go first.
        for mlu in simulated.iter().skip(wanted) {
            effects.extend(self.leave(*mlu));
            self.members.remove(mlu);
            self.changed.insert(*mlu);
        }
        for _ in simulated.len()..wanted {
            let name = format!("Simulated {}", self.next_mlu);
            let mlu = self.admit(None, &name, Part::LoadOnly).map_err(|reason| reason.text().to_owned())?;
            effects.extend(self.tell_presenters(mlu));
        }
        Ok(effects)
    }

    fn restart(&mut self, seed: u64) -> Vec<Effect> {
        (self.seed, self.slot, self.deciding) = (seed, 0, false);
        self.epoch += 1;
        (self.round, self.compare, self.totals) = (None, None, Totals::default());
        self.decisions.clear();
        self.unwritten.clear();
        self.picture = Default::default();
        for (mlu, member) in &mut self.members {
            let radio = member.progress.radio.redrawn(&self.params, seed, *mlu, 0);
            member.progress = member.progress.anew(radio);
        }
        vec![Effect::Restarted]
    }
}
