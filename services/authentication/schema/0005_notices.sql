-- Where signers are told what changes about their accounts, and what they are still to be told.

create table notice_addresses (
    tenant_id text not null references tenants,
    user_id text not null,
    email text not null check (length(email) <= 254),
    set_at timestamptz not null,
    primary key (tenant_id, user_id)
);

create table notices (
    -- The authenticator that was added: told of once, however often the message comes.
    notice_id text primary key,
    tenant_id text not null,
    user_id text not null,
    added_at timestamptz not null,
    usable_from timestamptz not null,
    attempts integer not null default 0,
    next_try_at timestamptz not null,
    outcome text check (outcome in ('sent', 'undeliverable')),
    ended_at timestamptz,
    check ((outcome is null) = (ended_at is null))
);

create index notices_waiting on notices (next_try_at) where ended_at is null;

create function keep_notice_ended() returns trigger language plpgsql as $$
begin
    if old.ended_at is not null then
        raise exception 'a notice that ended stays as it ended';
    end if;
    return new;
end $$;

create trigger ended_is_final before update on notices for each row execute function keep_notice_ended();

grant select, insert, delete on notice_addresses to $room;
grant update (email, set_at) on notice_addresses to $room;
grant select, insert on notices to $room;
grant update (attempts, next_try_at, outcome, ended_at) on notices to $room;
