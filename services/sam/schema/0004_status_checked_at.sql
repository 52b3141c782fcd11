-- When a status was last heard of comes under the seal of its row. What was noted without it is forgotten, for only the
-- SAM can seal: the next round of the CA connector notes it again. A row sealed before reads as one never heard of.

update credentials set status_checked_at = null where status_checked_at is not null;
