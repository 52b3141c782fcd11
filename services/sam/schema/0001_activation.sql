-- The SAM's own truth. Rows with a `mac` are sealed by a key of the SAM's HSM token: the SAM uses none that does not hold.

create table signers (
    signer_id text primary key,
    tenant_id text not null,
    user_id text not null,
    common_name text not null,
    organization text,
    country text not null,
    pin_salt bytea not null,
    pin_verifier bytea not null,
    pin_tries_left int not null check (pin_tries_left >= 0),
    totp_secret bytea,
    otp_tries_left int not null check (otp_tries_left >= 0),
    otp_last_step bigint not null,
    version int not null,
    mac bytea not null,
    unique (tenant_id, user_id)
);

create table credentials (
    credential_id text primary key,
    signer_id text not null references signers,
    tenant_id text not null,
    description text not null,
    key_algorithm text not null,
    profile text not null,
    authority text not null,
    otp_required boolean not null,
    hashes_required boolean not null,
    signatures_max int not null,
    state text not null check (state in ('requested', 'generated', 'ordered', 'active', 'suspended', 'refused', 'ended', 'destroyed')),
    reason text,
    key_id text not null unique,
    share bytea,
    public_key bytea,
    order_id text unique,
    chain bytea[] not null default '{}',
    certificate_status text not null check (certificate_status in ('none', 'valid', 'revoked', 'suspended')),
    not_after timestamptz,
    version int not null,
    mac bytea not null,
    touched_at timestamptz not null default now()
);

create index credentials_of_signer on credentials (signer_id, credential_id);
create index credentials_under_way on credentials (touched_at) where state in ('requested', 'generated', 'ended');

create table authorizations (
    authorization_id text primary key,
    sad_hash bytea not null unique,
    request_id text not null unique,
    credential_id text not null references credentials,
    tenant_id text not null,
    client_id text not null,
    signatures int not null,
    bound boolean not null,
    digest_set_hash bytea not null,
    epoch bigint not null,
    began_at timestamptz not null,
    expires_at timestamptz not null,
    mac bytea not null,
    used int not null default 0 check (used between 0 and signatures),
    replaced boolean not null default false
);

create table authorized_hashes (
    authorization_id text not null references authorizations,
    occurrence int not null,
    digest bytea not null,
    hash text,
    operation_id text,
    primary key (authorization_id, occurrence)
);

-- One row for each activation that left the SAM: what it spent, and its exact bytes as evidence.
create table activations (
    operation_id text primary key,
    authorization_id text references authorizations,
    token bytea not null,
    made_at timestamptz not null default now()
);

create table refused_tokens (
    token_id text primary key,
    until timestamptz not null
);

create table refused_clients (
    client_id text primary key,
    issued_before timestamptz not null,
    until timestamptz not null
);

-- What is spent stays spent, and only what may change can be changed.
create function keep_spent() returns trigger language plpgsql as $$
begin
    if new.used < old.used or (old.replaced and not new.replaced) then
        raise exception 'an authorization cannot be unspent';
    end if;
    return new;
end $$;
create trigger spent before update on authorizations for each row execute function keep_spent();

create function keep_occurrence() returns trigger language plpgsql as $$
begin
    if old.operation_id is not null and new.operation_id is distinct from old.operation_id then
        raise exception 'an authorized hash is spent once';
    end if;
    return new;
end $$;
create trigger occurrence before update on authorized_hashes for each row execute function keep_occurrence();

create function keep_destroyed() returns trigger language plpgsql as $$
begin
    if old.state = 'destroyed' or (old.state = 'ended' and new.state <> 'destroyed') then
        raise exception 'an ended credential does not come back';
    end if;
    return new;
end $$;
create trigger destroyed before update on credentials for each row execute function keep_destroyed();

grant select, insert on signers, credentials, authorizations, authorized_hashes, activations to $room;
grant update (pin_salt, pin_verifier, pin_tries_left, otp_tries_left, otp_last_step, version, mac) on signers to $room;
grant update (state, reason, share, public_key, order_id, chain, certificate_status, not_after, version, mac, touched_at)
    on credentials to $room;
grant update (used, replaced) on authorizations to $room;
grant update (operation_id) on authorized_hashes to $room;
grant select, insert, update, delete on refused_tokens, refused_clients to $room;
