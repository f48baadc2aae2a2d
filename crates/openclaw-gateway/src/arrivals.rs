//! Who comes to the gateway while a setup code is shown to somebody, and how far each gets: the person with the phone in
//! one hand sees on the other screen what the phone cannot tell.
//!
//! Nothing is noted while no code is out.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use openclaw_protocol::method::invite::{Arrival, ArrivalStage};

/// Addresses that are remembered.
const MAX_ARRIVALS: usize = 32;

/// The addresses, the one heard last at the end.
#[derive(Debug, Default)]
pub struct Arrivals {
    until_ms: AtomicI64,
    known: Mutex<VecDeque<(IpAddr, Arrival)>>,
}

/// What to note about an address.
#[derive(Clone, Debug)]
pub struct Advance {
    pub stage: ArrivalStage,
    /// Id and words of a pairing request.
    pub request: Option<(String, String)>,
}

impl From<ArrivalStage> for Advance {
    fn from(stage: ArrivalStage) -> Self {
        Self { stage, request: None }
    }
}

impl Arrivals {
    /// A code is out until then.
    pub fn watch(&self, until_ms: i64) {
        self.until_ms.fetch_max(until_ms, Ordering::Relaxed);
    }

    /// Somebody got this far. `None` is the owner's socket, which no device comes by.
    pub fn note(&self, now_ms: i64, address: Option<IpAddr>, advance: impl Into<Advance>) {
        let Some(address) = address.map(|address| address.to_canonical()) else { return };
        if now_ms >= self.until_ms.load(Ordering::Relaxed) {
            return;
        }
        let advance = advance.into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.iter().position(|(other, _)| *other == address).and_then(|index| known.remove(index));
        let mut arrival = before.map_or_else(
            || Arrival {
                address: address.to_string(),
                stage: ArrivalStage::Reached,
                tls: false,
                at_ms: now_ms,
                request_id: None,
                words: None,
            },
            |(_, arrival)| arrival,
        );
        arrival.at_ms = now_ms;
        arrival.tls |= advance.stage == ArrivalStage::Secured;
        // Devices try again and again: the furthest they got is what there is to tell.
        arrival.stage = arrival.stage.max(advance.stage);
        if let Some((id, words)) = advance.request {
            (arrival.request_id, arrival.words) = (Some(id), Some(words));
        }
        if known.len() == MAX_ARRIVALS {
            known.pop_front();
        }
        known.push_back((address, arrival));
    }

    pub fn list(&self) -> Vec<Arrival> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(_, arrival)| arrival.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_furthest_stage_counts_while_a_code_is_out() {
        let arrivals = Arrivals::default();
        let from = |last: u8| Some(IpAddr::from([192, 168, 1, last]));
        arrivals.note(5, from(1), ArrivalStage::Reached);
        assert!(arrivals.list().is_empty(), "nobody asked");
        arrivals.watch(100);
        arrivals.watch(50);
        arrivals.note(60, None, ArrivalStage::Reached);
        for (at, stage) in [(60, ArrivalStage::Reached), (61, ArrivalStage::Secured), (62, ArrivalStage::Reached)] {
            arrivals.note(at, from(1), stage);
        }
        arrivals.note(
            63,
            from(2),
            Advance { stage: ArrivalStage::Waiting, request: Some(("id".into(), "a-b-c".into())) },
        );
        arrivals.note(100, from(3), ArrivalStage::Reached);
        let told = arrivals.list();
        assert_eq!(told.len(), 2);
        assert_eq!((told[0].stage, told[0].tls, told[0].at_ms), (ArrivalStage::Secured, true, 62));
        assert_eq!((told[1].address.as_str(), told[1].words.as_deref()), ("192.168.1.2", Some("a-b-c")));
        for last in 0..=255 {
            arrivals.note(70, from(last), ArrivalStage::Reached);
        }
        assert_eq!(arrivals.list().len(), MAX_ARRIVALS);
    }
}
