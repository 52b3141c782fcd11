-- What signers grant beside signatures: a new credential of one CA and profile, or the end of one credential.

alter table grants
    add column authority text,
    add column certificate_profile text;

alter table grants drop constraint grants_scope_check;
alter table grants add constraint grants_scope_check
    check (scope in ('service', 'credential', 'credential-creation', 'credential-deletion'));
alter table grants drop constraint grants_check1;
alter table grants add constraint grants_check1
    check ((scope in ('credential', 'credential-deletion')) = (credential_id is not null));
alter table grants add constraint grants_choice_check
    check ((scope = 'credential-creation') = (authority is not null and certificate_profile is not null));
