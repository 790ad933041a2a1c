//! How data leaves: a table for people, JSON or CSV for programs.

use crate::arguments::Form;
use crate::exit::Failed;
use serde_json::Value;
use std::io::Write;

/// Standard output, in one form.
pub struct Show {
    form: Form,
}

impl Show {
    /// In this form.
    pub fn new(form: Form) -> Show {
        Show { form }
    }

    /// The form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Bytes as they are.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failed> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// One JSON value on a line.
    pub fn json(&self, value: &Value) -> Result<(), Failed> {
        self.bytes(format!("{value}\n").as_bytes())
    }
}
