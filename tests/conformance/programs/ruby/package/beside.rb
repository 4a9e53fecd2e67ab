module Beside
  def self.word
    "imported"
  end
end
