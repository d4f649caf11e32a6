//! `orb super dead-letters`: what webhooks could not be told of.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::describe;
use crate::failure::Failure;
use crate::format;
use crate::operator::{Asked, DeadLetters, Letter, Told, ask};
use crate::output::{Output, Table};

/// Show events that webhooks could not be told of, and have them sent again
#[derive(Debug, Args)]
#[command(after_help = "\
Events that a webhook could not be told of in twelve tries are kept as dead letters, the last 1,000 of
each webhook. --resend sends them once more, oldest first; what is delivered is a dead letter no more.
After a failure the rest of that webhook's stay. The super node has to run, on this machine.

Example:
  orb super dead-letters --data /var/lib/orb-super
  orb super dead-letters --data /var/lib/orb-super --resend
  orb super dead-letters --data ./super --webhook hooks.example.org --resend k3xj2m7qpa-1042")]
pub(crate) struct DeadLettersCommand {
    /// Only these events, by id or number
    #[arg(value_name = "EVENT")]
    events: Vec<String>,
    /// The super node's data folder
    #[arg(long, value_name = "DIR", env = "ORB_DATA")]
    data: PathBuf,
    /// Only those of this webhook: its address, or its host
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Send them again
    #[arg(long)]
    resend: bool,
}

#[derive(Serialize)]
struct Shown {
    letters: Vec<Letter>,
}

#[derive(Serialize)]
struct Resent {
    delivered: Vec<Letter>,
    /// One for each webhook that could not be told again; those after it stay, too.
    failed: Vec<Letter>,
}

impl DeadLettersCommand {
    pub(crate) async fn execute(self, out: Output) -> Result<(), Failure> {
        let asked = Asked::DeadLetters(DeadLetters {
            webhook: self.webhook.clone(),
            events: self.events.clone(),
            resend: self.resend,
        });
        let mut answers = ask(&self.data, &asked).await?;
        let (mut letters, mut delivered, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            match answers.next().await? {
                Told::Letter(letter) => letters.push(letter),
                Told::Delivered(letter) => {
                    out.note(&format!("delivered: {} to {}", letter.id, letter.webhook));
                    delivered.push(letter);
                }
                Told::Failed(letter) => failed.push(letter),
                Told::Refused { message, help } => {
                    return Err(Failure::new("input_invalid", message).exit(2).help(help));
                }
                Told::Done => break,
            }
        }
        match self.resend {
            true => tell_resent(&Resent { delivered, failed }, out),
            false => show(&Shown { letters }, out),
        }
    }
}

fn show(shown: &Shown, out: Output) -> Result<(), Failure> {
    let summary = format::count(shown.letters.len(), "dead letter");
    let text = match shown.letters.is_empty() {
        true => "no dead letters".to_owned(),
        false => table(&shown.letters, &out),
    };
    out.result(shown, &summary, &text)
}

fn table(letters: &[Letter], out: &Output) -> String {
    let mut table = Table::new(["ID", "TIME", "EVENT", "FUNCTION", "WEBHOOK", "TRIES", "REASON"]);
    for letter in letters {
        let field = |name: &str| letter.event[name].as_str().unwrap_or("-").to_owned();
        table.row([
            letter.id.clone(),
            field("time"),
            field("kind"),
            field("function"),
            describe::one_line(&letter.webhook),
            letter.attempts.to_string(),
            describe::one_line(&letter.reason),
        ]);
    }
    table.render(out)
}

fn tell_resent(resent: &Resent, out: Output) -> Result<(), Failure> {
    let mut lines = vec![format!(
        "{} delivered",
        format::count(resent.delivered.len(), "dead letter")
    )];
    for letter in &resent.failed {
        lines.push(format!(
            "{} to {} failed again ({}): it and those after it stay",
            letter.id,
            describe::one_line(&letter.webhook),
            describe::one_line(&letter.reason)
        ));
    }
    out.result(resent, &lines[0], &lines.join("\n"))?;
    match resent.failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::shown(1)),
    }
}
