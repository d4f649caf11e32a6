//! Two devices of one owner that publish at the same moment.

use std::fs;

use orb_tests::{Ended, Network, Orb, Project};

/// Rounds of the race: in the first of them nearly always somebody loses.
const ROUNDS: usize = 20;
/// Devices that publish at once.
const DEVICES: usize = 4;

/// The same person on so many machines.
fn devices(network: &Network) -> Vec<Orb> {
    let devices: Vec<Orb> = (0..DEVICES).map(|_| network.user()).collect();
    devices[0].owner();
    let key = devices[0].home().join("owner.key");
    for device in &devices[1..] {
        fs::copy(&key, device.home().join("owner.key")).unwrap();
    }
    devices
}

#[test]
fn of_devices_that_publish_one_number_one_wins_and_the_others_are_told() {
    let network = Network::start(1);
    let devices = devices(&network);
    let projects: Vec<Project> = (0..DEVICES)
        .map(|device| Project::js("raced", &format!("export default () => {device};")))
        .collect();
    let mut live = 0;
    let mut told = 0;
    for _ in 0..ROUNDS {
        let running: Vec<_> = (0..DEVICES)
            .map(|device| {
                let message = format!("from device {device}");
                devices[device].start_in(
                    projects[device].path(),
                    ["deploy", "--json", "--message", &message],
                )
            })
            .collect();
        let ended: Vec<Ended> = running.into_iter().map(|running| running.wait()).collect();
        let mut numbers = Vec::new();
        for ended in ended {
            if ended.code == 0 {
                numbers.push(ended.json()["revision"].as_u64().unwrap());
                continue;
            }
            let fault = ended.fails(7, "refused");
            assert!(
                fault.message.contains("another device published revision"),
                "{fault:?}"
            );
            fault.says(&[
                "from device",
                "yours is not live",
                "deploy again to make it revision",
            ]);
            told += 1;
        }
        // Nobody was promised a number that another one has.
        numbers.sort_unstable();
        let distinct = numbers.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(
            distinct && !numbers.is_empty() && numbers[0] > live,
            "{numbers:?} after {live}"
        );
        live = numbers[numbers.len() - 1];
        if told > 0 {
            break;
        }
    }
    assert!(told > 0, "in {ROUNDS} rounds nobody was second with a number");
    // All devices see one winner, and the chain of what was promised.
    let seen: Vec<_> = devices
        .iter()
        .map(|device| device.run(["versions", "raced", "--json"]).json()["revisions"].clone())
        .collect();
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    let revisions = seen[0].as_array().unwrap();
    assert_eq!(revisions[0]["revision"].as_u64(), Some(live));
    assert!(
        revisions
            .windows(2)
            .all(|pair| pair[0]["parent"] == pair[1]["hash"]),
        "{revisions:?}"
    );
    // The one that lost does as it was told.
    projects[0].deploy(&devices[0]);
    assert_eq!(devices[1].answer("raced", "null"), 0);
}
