-- Many CAs: which profile of its CA a certificate is of, how a credential is renewed, and how it ends.

alter table signers
    add column organization_identifier text,
    add column subject_type text not null default 'natural' check (subject_type in ('natural', 'legal', 'seal'));

alter table credentials
    add column certificate_profile text not null default 'signing',
    add column csr bytea,
    -- The order of a new certificate for the same key, while it is under way.
    add column renewal_id text unique,
    -- This row carries the next key of that credential; once certified, the two rows change their keys.
    add column supersedes text references credentials,
    add column one_time boolean not null default false,
    add column ending text not null default ''
        check (ending in ('', 'deleted', 'revoked', 'expired', 'superseded', 'spent', 'refused')),
    -- The reason to revoke with (RFC 5280 5.3.1); null: the certificate is not revoked.
    add column revoke_as int default 5,
    add column status_checked_at timestamptz;

-- Two rows change their keys and orders in one transaction.
alter table credentials drop constraint credentials_key_id_key;
alter table credentials add constraint credentials_key_id_key unique (key_id) deferrable initially deferred;
alter table credentials drop constraint credentials_order_id_key;
alter table credentials add constraint credentials_order_id_key unique (order_id) deferrable initially deferred;

create unique index credentials_superseding on credentials (supersedes)
    where supersedes is not null and state in ('requested', 'generated', 'ordered');
create index credentials_expiring on credentials (not_after) where state in ('active', 'suspended');
create index credentials_for_once on credentials (touched_at) where one_time and state not in ('ended', 'destroyed');
-- A refused credential keeps its row, and its key is destroyed.
create index credentials_refused on credentials (touched_at) where state = 'refused' and share is not null;

grant update (key_id, csr, renewal_id, ending, revoke_as, status_checked_at) on credentials to $room;
