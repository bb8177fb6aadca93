//! The actions of STS.

use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::World;
use crate::xml::Xml;

/// The API version in every request.
pub(crate) const VERSION: &str = "2011-06-15";

/// The namespace of the answers.
pub(crate) const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

pub(crate) fn call(world: &mut World, action: &str, _form: &Form) -> Result<Xml, Refusal> {
    match action {
        "GetCallerIdentity" => Ok(get_caller_identity(world)),
        _ => Err(Refusal::unknown_action(action)),
    }
}

/// `AccessDenied`, in IAM's wording for an explicit deny. `GetCallerIdentity` needs no permission, so in AWS only a
/// policy of the organization causes this.
pub(crate) fn denied(world: &World, action: &str) -> Refusal {
    Refusal::new(
        "AccessDenied",
        format!(
            "User: {} is not authorized to perform: sts:{action} with an explicit deny",
            world.caller_arn()
        ),
    )
    .with_status(403)
}

fn get_caller_identity(world: &World) -> Xml {
    Xml::fragment(|xml| {
        xml.text("Arn", world.caller_arn());
        // The role's id, and the session's name.
        xml.text("UserId", "AROA0123456789ABCDEFG:guard");
        xml.text("Account", &world.account);
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_caller_is_a_role_of_the_worlds_account() {
        let mut world = World {
            account: "210987654321".into(),
            ..World::default()
        };
        let params = BTreeMap::new();
        let answer = call(&mut world, "GetCallerIdentity", &Form::new(&params)).unwrap();
        assert_eq!(
            answer.as_str(),
            "<Arn>arn:aws:sts::210987654321:assumed-role/guard/guard</Arn>\
             <UserId>AROA0123456789ABCDEFG:guard</UserId><Account>210987654321</Account>"
        );
        let refusal = call(&mut world, "AssumeRole", &Form::new(&params)).unwrap_err();
        assert_eq!(refusal.code, "InvalidAction");
    }
}
