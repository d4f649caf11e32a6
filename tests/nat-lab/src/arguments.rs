//! Which parts of the lab are run.

/// What to say to whoever gives others.
pub(crate) const USAGE: &str = "\
Usage: orb-nat-lab [nat] [partition] [crash] [--rounds N] [--seed N]

Without the name of a part all of them run, the crash harness for 20 rounds.
  nat         calls between machines behind three kinds of NAT
  partition   five super nodes with twenty hosts, parted and healed
  crash       three super nodes with six hosts: a load, kills and partitions, round after round
  --rounds N  rounds of the crash harness [default: 20]
  --seed N    what decides everything random in it [default: 1]";

/// See [`USAGE`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) nat: bool,
    pub(crate) partition: bool,
    pub(crate) crash: bool,
    pub(crate) rounds: u64,
    pub(crate) seed: u64,
}

impl Arguments {
    /// Reads them.
    ///
    /// # Errors
    /// What makes no sense.
    pub(crate) fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut read = Self {
            nat: false,
            partition: false,
            crash: false,
            rounds: 20,
            seed: 1,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let value = arguments.next().and_then(|value| value.parse().ok());
                value.ok_or_else(|| format!("{argument} wants a number"))
            };
            match argument.as_str() {
                "nat" => read.nat = true,
                "partition" => read.partition = true,
                "crash" => read.crash = true,
                "--rounds" => read.rounds = number()?,
                "--seed" => read.seed = number()?,
                _ => return Err(format!("what is {argument}?")),
            }
        }
        if !(read.nat || read.partition || read.crash) {
            (read.nat, read.partition, read.crash) = (true, true, true);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_all_parts_run() {
        let read = |line: &str| Arguments::read(line.split_whitespace().map(str::to_owned));
        let all = read("--seed 4").expect("it makes sense");
        assert!(all.nat && all.partition && all.crash && all.seed == 4 && all.rounds == 20);
        let one = read("crash --rounds 200").expect("it makes sense");
        assert!(!one.nat && !one.partition && one.crash && one.rounds == 200);
        assert!(read("crash --rounds").is_err() && read("all").is_err());
    }
}
