-- A program: a tenant under another's credentials, which asks for it by its code.
ALTER TABLE tenant ADD COLUMN parent_id UUID REFERENCES tenant (tenant_id);
ALTER TABLE tenant ADD COLUMN program TEXT;
ALTER TABLE tenant ADD CONSTRAINT ck_tenant_program
    CHECK ((program IS NULL) = (parent_id IS NULL) AND parent_id IS DISTINCT FROM tenant_id);
CREATE UNIQUE INDEX uq_tenant_program ON tenant (parent_id, program);
