//! Commands of the CLIENT family that concern the sessions of all workers: the others are asked, and what they answer is added
//! to what is found here. The session that asked waits meanwhile.

use crate::command::Command;
use crate::resp::{Request, RequestScanner};

use super::client::Answer;
use super::ingress::Step;
use super::keys::ANY;
use super::session::{Peering, Wait};
use super::ticket::Ticket;
use super::{Engine, Intent};

/// How long another worker is waited for; only one that has ended is not heard of in time.
const PATIENCE_MS: u64 = 1_000;

/// A command that waits for the other workers.
#[derive(Debug)]
pub(super) struct Asking {
    number: u64,
    ticket: Ticket,
    /// Workers that have not answered.
    left: usize,
    /// What is known so far.
    answer: Answer,
    until_ms: u64,
    resp3: bool,
}

/// Whether a command is for the sessions of all workers.
fn is_for_all(command: &Command) -> bool {
    let names = ["client|list", "client|kill", "client|unblock", "client|pause", "client|unpause"];
    names.contains(&command.name)
}

impl Engine {
    /// A command that concerns the sessions of other workers, too. `None`: it does not, or is wrong.
    pub(super) fn ask_abroad(
        &mut self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> Option<Step> {
        let others = self.seat.others();
        let session = &self.sessions[slot];
        if others == 0 || session.peering != Peering::Client || !command.is_some_and(is_for_all) {
            return None;
        }
        let resp3 = session.resp == 3;
        let answer = self.client_everywhere(Some(slot), request)?.ok()?;
        let ticket = self.accept(slot);
        self.numbers += 1;
        let (number, until_ms) = (self.numbers, self.now.ms + PATIENCE_MS);
        self.asking.push(Asking { number, ticket, left: others, answer, until_ms, resp3 });
        self.intents.push(Intent::AskOthers { number, frame: request.frame.to_vec() });
        Some(Step::Taken(Wait::Quiet))
    }

    /// Another worker asks what one of its sessions wants of all.
    pub fn asked(&mut self, frame: &[u8]) -> Answer {
        let mut scanner = RequestScanner::default();
        scanner.scan(frame, ANY);
        self.client_everywhere(None, &scanner.request(frame)).and_then(Result::ok).unwrap_or_default()
    }

    /// What another worker found.
    pub fn answered(&mut self, number: u64, answer: Answer) {
        let Some(at) = self.asking.iter().position(|a| a.number == number) else { return };
        let asking = &mut self.asking[at];
        asking.answer.add(answer);
        asking.left -= 1;
        if asking.left == 0 {
            let done = self.asking.swap_remove(at);
            self.tell_asker(done);
        }
    }

    /// Answer those that have waited too long.
    pub(super) fn expire_asking(&mut self) {
        while let Some(at) = self.asking.iter().position(|a| self.now.ms >= a.until_ms) {
            let late = self.asking.swap_remove(at);
            self.tell_asker(late);
        }
    }

    /// Nobody is waited for any more.
    pub(super) fn give_up_asking(&mut self) {
        for asking in std::mem::take(&mut self.asking) {
            self.tell_asker(asking);
        }
    }

    fn tell_asker(&mut self, Asking { ticket, answer, resp3, .. }: Asking) {
        self.settle(ticket, |out| answer.write(out, resp3));
    }
}
